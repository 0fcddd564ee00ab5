//! What has to be true of every world at its end.
//!
//! The order of operations on each row is looked for by search; beside that stand simple rules that take one
//! look at each operation, so that a mistake of the search cannot hide one of the ring.

use std::collections::BTreeMap;

use super::client::keys;
use super::history::{Operation, Seen};
use super::host::{Host, Life};
use super::world::World;
use crate::dht::sim::{HashTree, Register, Replica, hash, leaf_of, register, slice_of_row};
use crate::store::ModelDisk;
use crate::wire::ring::{RequestKey, RowKey, Slice, Sum};

impl World {
    /// Looks at what clients were told and at what the members have, and notes what must not be.
    pub(super) fn judge(&mut self) {
        let mut found = Vec::new();
        for key in keys() {
            let copies = self.copies(&key);
            if copies.iter().any(|(_, copy)| *copy != copies[0].1) {
                let copies = copies.iter().map(|(host, copy)| {
                    format!(
                        "\n  member {host} has {:?} version {:?}",
                        copy.accepted,
                        copy.state.version()
                    )
                });
                found.push(format!(
                    "{key:?}: replicas differ after quiet:{}",
                    copies.collect::<String>()
                ));
            }
            let newest = copies
                .into_iter()
                .map(|(_, copy)| copy)
                .max_by_key(|copy| copy.accepted);
            let last = newest.map(|copy| Seen::from(copy.state));
            found.extend(self.broken_rules(&key, last.as_ref()));
            if let Some(last) = last {
                // What the members have in the end has to fit to all that was said before.
                let called = self.history.moment();
                self.history.record(&key, called, Operation::Read(last));
            }
        }
        found.extend(self.history.check());
        for (host, there) in self.hosts.iter().enumerate() {
            let serving = there.life.as_ref().and_then(|life| life.serving.as_ref());
            match serving.filter(|serving| serving.replica.votes()) {
                Some(serving) => found.extend(
                    wrong_tree(&there.disk, &serving.replica)
                        .map(|why| format!("member {host}: {why}")),
                ),
                None => found.push(format!(
                    "member {host} has no say after quiet: {}",
                    there
                        .life
                        .as_ref()
                        .map_or("dead".to_owned(), Life::describe)
                )),
            }
        }
        for host in 0..self.hosts.len() {
            if self.knows_of_the_past(host) {
                found.push(format!(
                    "member {host} knows of leases long after their time"
                ));
            }
        }
        self.tally.violations.extend(found);
        self.compare_times();
    }

    /// A member that returned is about to vote: it has to have what was acknowledged before it raised the epoch.
    pub(super) fn look_at_what_is_owed(&mut self, host: usize, owed: Vec<(RowKey, u64)>) {
        for (key, version) in owed {
            let copies = self.copies(&key);
            let copy = copies.iter().find(|(at, _)| *at == host);
            let has = copy.map(|(_, row)| row.state.version().as_u64());
            if has.is_some_and(|has| has < version) {
                self.tally.violations.push(format!(
                    "member {host} votes without version {version} of {key:?}: it has {has:?}"
                ));
            }
        }
    }

    /// In a ring of two, the one that is down, and how many lives it had.
    pub(super) fn one_of_two_is_down(&self) -> Option<(usize, u64)> {
        let down = self.hosts.iter().position(|there| there.life.is_none())?;
        (self.hosts.len() == 2).then(|| (down, self.hosts[down].lives))
    }

    /// A client was told of a version of a row. In a ring of two both have it then, and both took part, unless one was
    /// `down` when it was asked and has been since.
    pub(super) fn look_at_both(&mut self, key: &RowKey, version: u64, down: Option<(usize, u64)>) {
        if self.hosts.len() != 2 {
            return;
        }
        if let Some((host, lives)) = down
            && self.hosts[host].lives == lives
        {
            let broken =
                format!("version {version} of {key:?} is told while member {host} is down");
            self.tally.violations.push(broken);
        }
        for (host, there) in self.hosts.iter().enumerate() {
            let row = there.disk.read(|view| register(view, key));
            let has = row.unwrap_or_default().state.version().as_u64();
            if has < version {
                self.tally.violations.push(format!(
                    "version {version} of {key:?} is told of two, and member {host} has {has}"
                ));
            }
        }
    }

    /// What the replicas of a row have on disk.
    fn copies(&self, key: &RowKey) -> Vec<(usize, Register)> {
        let copy = |host: usize| {
            let Host { disk, id, life, .. } = &self.hosts[host];
            let serving = life.as_ref()?.serving.as_ref()?;
            let holders = serving.placement.preference_list(slice_of_row(key));
            holders.contains(&(*id)?).then(|| {
                let row = disk.read(|view| register(view, key)).unwrap_or_default();
                (host, row)
            })
        };
        (0..self.hosts.len()).filter_map(copy).collect()
    }

    /// The rules that this row breaks, of which `last` is what the replicas have.
    fn broken_rules(&self, key: &RowKey, last: Option<&Seen>) -> Vec<String> {
        let Some((_, row)) = self.history.rows().find(|(known, _)| *known == key) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut makers: BTreeMap<u64, RequestKey> = BTreeMap::new();
        let mut made: BTreeMap<RequestKey, u64> = BTreeMap::new();
        for span in row {
            let Operation::Made(change, version) = &span.operation else {
                continue;
            };
            let maker = makers.entry(*version).or_insert(change.request);
            if *maker != change.request {
                found.push(format!("{key:?}: version {version} was made twice"));
            }
            let earlier = made.entry(change.request).or_insert(*version);
            if earlier != version {
                found.push(format!(
                    "{key:?}: one request made versions {earlier} and {version}"
                ));
            }
            match last {
                Some(last) if last.version >= *version => {}
                _ => found.push(format!(
                    "{key:?}: version {version} was acknowledged and is missing"
                )),
            }
            let is_last = last.is_some_and(|last| last.version == *version);
            if is_last && last.is_some_and(|last| last.value != change.value) {
                found.push(format!(
                    "{key:?}: version {version} does not have the value that it was given"
                ));
            }
        }
        found
    }
}

/// How the hash tree of a replica differs from its rows, if it does.
fn wrong_tree(disk: &ModelDisk, replica: &Replica) -> Option<&'static str> {
    let mut sums: BTreeMap<(Slice, u8), Sum> = BTreeMap::new();
    for key in keys() {
        let row = disk.read(|view| register(view, &key)).unwrap_or_default();
        let leaf = sums.entry((slice_of_row(&key), leaf_of(&key))).or_default();
        *leaf = leaf.wrapping_add(hash(&key, row.accepted));
    }
    let on_disk = disk.read(HashTree::load).ok().flatten().unwrap_or_default();
    let differs = |tree: &HashTree| {
        sums.iter()
            .any(|((slice, leaf), sum)| tree.leaves(*slice)[usize::from(*leaf)] != *sum)
    };
    if differs(&on_disk) {
        Some("its hash tree on disk is not that of its rows")
    } else if differs(replica.tree()) {
        Some("its hash tree in memory is not that of its rows")
    } else {
        None
    }
}
