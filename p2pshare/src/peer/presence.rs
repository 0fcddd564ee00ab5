//! Being there: the peer tells the trackers where it is and what it holds, whole to a tracker that does not
//! know it yet, then what changes, and renews it all before its leases end. Each answer has the digest of what the
//! tracker holds now; where that is not what it was told, something was lost, and it is told all anew.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    error::SessionError,
    library::Library,
    link::{Connected, TrackerLink, pause_before_attempt},
    ongoing::{Ongoing, Part},
    session::new_change,
};
use crate::{
    content::FileId,
    identity::{FileName, GroupName},
    limits::{
        ANNOUNCED_ADDRS_MAX, ANNOUNCED_BITFIELD_BYTES_MAX, ANNOUNCED_SWARMS_MAX, FAREWELL_TIMEOUT,
        LEASE_RENEWAL,
    },
    wire::tracker::{Announcement, Holding, Request, Response, SetDigest, SwarmEntry, SwarmPlace},
};

/// What keeps one peer known to the trackers.
pub(super) struct Presence {
    link: TrackerLink,
    library: Library,
    ongoing: Ongoing,
    /// Where the peer listens.
    listens: SocketAddr,
    /// Of the last announcement.
    number: u64,
    /// The connection on which the tracker was told everything, and what it was told.
    told: Option<(u64, Told)>,
    /// Up to which change of the library the trackers know it.
    known: watch::Sender<Option<u64>>,
    /// The addresses that were announced last.
    addrs: watch::Sender<Vec<SocketAddr>>,
}

/// What is held, by its place.
type Holds = BTreeMap<SwarmPlace, SwarmEntry>;

/// What a tracker was told, and what it holds of that.
#[derive(Clone, Debug, Default)]
struct Told {
    entries: BTreeMap<SwarmPlace, (SwarmEntry, Kept)>,
    digest: SetDigest,
}

/// Whether the tracker kept what it was told. What it said that it does not keep, it is told no more of.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Kept {
    Yes,
    No,
}

impl Told {
    /// The tracker is told an entry.
    fn tell(&mut self, entry: &SwarmEntry) {
        let place = entry.place();
        self.not_kept(&place);
        self.entries.remove(&place);
        if entry.holding != Holding::Nothing {
            self.digest.add(&place, entry.id, &entry.holding);
            self.entries.insert(place, (entry.clone(), Kept::Yes));
        }
    }

    /// The tracker said that it does not keep what is in a place.
    fn not_kept(&mut self, place: &SwarmPlace) {
        if let Some((entry, kept @ Kept::Yes)) = self.entries.get_mut(place) {
            self.digest.remove(place, entry.id, &entry.holding);
            *kept = Kept::No;
        }
    }

    /// What has to be said so that the tracker knows what is held now.
    fn lacks(&self, holds: &Holds) -> Vec<SwarmEntry> {
        let ended = self
            .entries
            .iter()
            .filter(|(place, _)| !holds.contains_key(*place))
            .map(|(_, (entry, _))| SwarmEntry {
                holding: Holding::Nothing,
                ..entry.clone()
            });
        let was_told = |place| self.entries.get(place).map(|(entry, _)| entry);
        let begun = holds
            .iter()
            .filter(|(place, entry)| was_told(*place) != Some(*entry))
            .map(|(_, entry)| entry.clone());
        ended.chain(begun).collect()
    }
}

impl Presence {
    pub(super) fn new(
        link: TrackerLink,
        (library, ongoing): (Library, Ongoing),
        listens: SocketAddr,
    ) -> Self {
        Self {
            link,
            library,
            ongoing,
            listens,
            number: 0,
            told: None,
            known: watch::Sender::new(None),
            addrs: watch::Sender::new(Vec::new()),
        }
    }

    /// Up to which change of the library the trackers know it, if they do, now and later.
    pub(super) fn known(&self) -> watch::Receiver<Option<u64>> {
        self.known.subscribe()
    }

    /// The addresses that were announced last.
    pub(super) fn addrs(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.addrs.subscribe()
    }

    /// Announces until `end`, and then takes leave.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut credential = self.link.credential();
        let mut changes = self.library.changes();
        let mut failures = 0;
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                logged_in = credential.wait_for(Option::is_some) => {
                    if logged_in.is_err() {
                        return;
                    }
                }
            }
            let pause = match self.announce(&mut changes).await {
                Ok(()) => {
                    failures = 0;
                    match self.told {
                        Some(_) => LEASE_RENEWAL,
                        // Another tracker took over meanwhile, and has to be told all.
                        None => Duration::ZERO,
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "not announced");
                    failures += 1;
                    pause_before_attempt(failures)
                }
            };
            let mut connected = self.link.connected();
            let known = match &self.told {
                Some((serial, _)) => Some(*serial),
                None => connected.borrow().as_ref().map(|now| now.serial),
            };
            tokio::select! {
                () = end.cancelled() => break,
                _ = tokio::time::sleep(pause) => {}
                _ = changes.changed() => {}
                // Another tracker, or the same one started again, knows nothing.
                _ = connected.wait_for(|now| {
                    let now = now.as_ref().map(|now| now.serial);
                    now != known && (failures == 0 || now.is_some())
                }) => {}
            }
        }
        self.take_leave().await;
    }

    async fn announce(&mut self, changes: &mut watch::Receiver<u64>) -> Result<(), SessionError> {
        // Whatever becomes of this announcement, only what changes after it is a reason for the next.
        let change = *changes.borrow_and_update();
        let connected = self.link.connect().await?;
        // Whoever hears that it is here may rely on its being kept.
        if let Err(error) = self.record_shares().await {
            tracing::debug!(%error, "not noted as a sharer yet");
        }
        let known = self.told.take();
        let known = known.filter(|(serial, _)| *serial == connected.serial);
        self.known.send_replace(None);
        let addrs = self.useful_addrs(&connected);
        self.addrs.send_replace(addrs.clone());
        let (mut told, mut held) = self.tell(known.map(|(_, told)| told), &addrs).await?;
        if held != told.digest && self.serial() == Some(connected.serial) {
            tracing::info!("what a tracker holds is not what it was told; it is told all anew");
            (told, held) = self.tell(None, &addrs).await?;
        }
        if held != told.digest {
            tracing::debug!("a tracker does not hold what it was told");
        }
        if self.serial() == Some(connected.serial) {
            self.told = Some((connected.serial, told));
            self.known.send_replace(Some(change));
        }
        Ok(())
    }

    /// The connection that there is now.
    fn serial(&self) -> Option<u64> {
        let connected = self.link.connected();
        let connected = connected.borrow();
        connected.as_ref().map(|now| now.serial)
    }

    /// Tells a tracker what it lacks of what is held, or all if it is not known what it was `told`. Gives what it
    /// was told then, and the digest of what it says that it holds.
    async fn tell(
        &mut self,
        told: Option<Told>,
        addrs: &[SocketAddr],
    ) -> Result<(Told, SetDigest), SessionError> {
        let holds = self.holds();
        let mut anew = told.is_none();
        let mut told = told.unwrap_or_default();
        let mut batches = batches(told.lacks(&holds)).into_iter();
        let mut swarms = batches.next().unwrap_or_default();
        loop {
            swarms.iter().for_each(|entry| told.tell(entry));
            self.number = (self.number + 1).max(self.link.now().as_millis());
            let announcement = Announcement {
                number: self.number,
                addrs: addrs.to_vec(),
                anew: std::mem::take(&mut anew),
                swarms,
            };
            let held = self.send(announcement, &mut told).await?;
            match batches.next() {
                Some(next) => swarms = next,
                None => return Ok((told, held)),
            }
        }
    }

    /// Sends one announcement, and sees to what the tracker says to it. Gives the digest of what it holds.
    async fn send(
        &self,
        announcement: Announcement,
        told: &mut Told,
    ) -> Result<SetDigest, SessionError> {
        let answer = self.link.ask(Request::Announce(announcement)).await?;
        let Response::Announced {
            time,
            gone,
            left_out,
            held,
        } = answer
        else {
            return Err(SessionError::Protocol);
        };
        if let Some(time) = time {
            self.link.update_clock(time);
        }
        for (group, name) in left_out {
            tracing::warn!(%group, %name, "the tracker has no room for what is shared here");
            told.not_kept(&(group.folded(), name));
        }
        for (group, name) in gone {
            let place = (group.folded(), name);
            told.not_kept(&place);
            let Some(id) = told.entries.get(&place).map(|(entry, _)| entry.id) else {
                continue;
            };
            match self.library.reserve(&group, &place.1) {
                Some(_reserved) => self.stop_sharing(group, place.1, id).await?,
                // Whoever is about to share something new under that name has the last word, and it is told again.
                None => drop(told.entries.remove(&place)),
            }
        }
        Ok(held)
    }

    /// Shares what is no file of its group no longer.
    async fn stop_sharing(
        &self,
        group: GroupName,
        name: FileName,
        id: FileId,
    ) -> Result<(), SessionError> {
        if !self.library.remove(&group, &name, id).await? {
            return Ok(());
        }
        tracing::info!(%group, %name, "no longer a file of the group that is shared here");
        // Whoever was removed from a group is still noted as a sharer there.
        let request = Request::StopSharing {
            change: new_change(),
            group,
            name,
            for_all: false,
        };
        if let Err(error) = self.link.ask(request).await {
            tracing::debug!(%error, "not noted as a sharer any more, or never");
        }
        Ok(())
    }

    /// Has the records of those files name this peer that were complete here when no tracker could be asked for it.
    async fn record_shares(&self) -> Result<(), SessionError> {
        for share in self.library.unrecorded() {
            let request = Request::AddSharer {
                change: new_change(),
                group: share.group.clone(),
                name: share.name.clone(),
                id: share.id,
            };
            match self.link.ask(request).await {
                Ok(_) => self.library.note_recorded(&share).await?,
                Err(error) if error.is_transient() => return Err(error),
                // That it is no file of the group any more is the answer to its announcement.
                Err(error) => tracing::debug!(%error, name = %share.name, "not noted as a sharer"),
            }
        }
        Ok(())
    }

    /// Says that nothing is held any more, if a tracker listens.
    async fn take_leave(&mut self) {
        if self.told.is_none() || self.link.credential().borrow().is_none() {
            return;
        }
        let announcement = Announcement {
            number: (self.number + 1).max(self.link.now().as_millis()),
            addrs: Vec::new(),
            anew: true,
            swarms: Vec::new(),
        };
        let farewell = self.link.ask(Request::Announce(announcement));
        if timeout(FAREWELL_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("no tracker heard the farewell");
        }
    }

    fn holds(&self) -> Holds {
        let entry = |group: &GroupName, name: &FileName, id: FileId, holding| {
            let entry = SwarmEntry {
                group: group.clone(),
                name: name.clone(),
                id,
                holding,
            };
            ((group.folded(), name.clone()), entry)
        };
        // Of what is downloaded to two places what has got farther counts, which is what is served.
        let parts = self.ongoing.all().into_iter();
        let parts = parts.filter(|part| part.is_announced());
        let parts = parts.map(|part| entry(&part.group, &part.name, part.id, holding(&part)));
        let shares = self.library.announced().into_iter();
        let whole = Holding::Complete;
        let shares = shares.map(|share| entry(&share.group, &share.name, share.id, whole.clone()));
        // What is here whole under a name counts more than what is being downloaded.
        parts.chain(shares).collect()
    }

    /// Where others may reach this peer: as the tracker sees it, and at the addresses of its interfaces;
    /// loopback only if the tracker is on this machine.
    fn useful_addrs(&self, connected: &Connected) -> Vec<SocketAddr> {
        let port = self.listens.port();
        let bound = self.listens.ip().to_canonical();
        if !bound.is_unspecified() {
            return vec![SocketAddr::new(bound, port)];
        }
        let observed = connected.observed.ip().to_canonical();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let mut candidates: Vec<IpAddr> = interfaces.into_iter().map(|i| i.ip()).collect();
        // IPv4 first: where both are had, it more often gets through.
        candidates.sort_by_key(IpAddr::is_ipv6);
        let mut addrs = vec![SocketAddr::new(observed, connected.observed.port())];
        for ip in candidates {
            let addr = SocketAddr::new(ip, port);
            if is_announced(ip, bound, observed.is_loopback()) && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs.truncate(ANNOUNCED_ADDRS_MAX);
        addrs
    }
}

/// Whether an address of an interface is one to announce, for a socket bound to `bound`.
fn is_announced(ip: IpAddr, bound: IpAddr, seen_on_loopback: bool) -> bool {
    let reachable = match (ip, bound) {
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        // Of use only with the name of an interface, which differs from machine to machine.
        (IpAddr::V6(ip), _) => !ip.is_unicast_link_local(),
        (IpAddr::V4(ip), _) => !ip.is_link_local(),
    };
    reachable && (seen_on_loopback || !ip.is_loopback())
}

/// What is announced of a download: that it has begun, so that those who begin at the same time meet, and then what is
/// here. Whoever connects learns exactly that, so that of the largest files it is enough to say that there is something.
fn holding(part: &Part) -> Holding {
    let bits = part.had().to_bytes();
    match bits.len() <= ANNOUNCED_BITFIELD_BYTES_MAX {
        true => Holding::Partial(bits),
        false => Holding::Partial(Vec::new()),
    }
}

/// The entries in as few announcements as their bounds allow.
fn batches(entries: Vec<SwarmEntry>) -> Vec<Vec<SwarmEntry>> {
    let (mut batches, mut bytes): (Vec<Vec<SwarmEntry>>, _) = (Vec::new(), 0);
    for entry in entries {
        let more = match &entry.holding {
            Holding::Partial(bits) => bits.len(),
            Holding::Nothing | Holding::Complete => 0,
        };
        match batches.last_mut() {
            Some(batch)
                if batch.len() < ANNOUNCED_SWARMS_MAX
                    && bytes + more <= ANNOUNCED_BITFIELD_BYTES_MAX =>
            {
                bytes += more;
                batch.push(entry);
            }
            _ => {
                bytes = more;
                batches.push(vec![entry]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn entry(name: &str, id: u8) -> ((String, FileName), SwarmEntry) {
        let (group, name) = (GroupName::new("g").unwrap(), FileName::new(name).unwrap());
        let entry = SwarmEntry {
            group: group.clone(),
            name: name.clone(),
            id: FileId::from_bytes([id; 32]),
            holding: Holding::Complete,
        };
        ((group.folded(), name), entry)
    }

    #[test]
    fn only_what_changed_is_said() {
        let before: Holds = [entry("a", 1), entry("b", 2), entry("c", 3)].into();
        let holds: Holds = [entry("a", 1), entry("c", 9), entry("d", 4)].into();
        let mut told = Told::default();
        before.values().for_each(|entry| told.tell(entry));
        let said: Vec<_> = told
            .lacks(&holds)
            .into_iter()
            .map(|entry| (entry.name.to_string(), entry.holding))
            .collect();
        let expected = [
            ("b", Holding::Nothing),
            ("c", Holding::Complete),
            ("d", Holding::Complete),
        ];
        assert_eq!(
            said,
            expected.map(|(name, holding)| (name.to_owned(), holding))
        );
        told.lacks(&holds).iter().for_each(|entry| told.tell(entry));
        assert!(told.lacks(&holds).is_empty());
    }

    #[test]
    fn what_a_tracker_does_not_keep_is_not_said_again_and_not_counted() {
        let holds: Holds = [entry("a", 1), entry("b", 2)].into();
        let mut told = Told::default();
        told.tell(&entry("a", 1).1);
        let of_one = told.digest;
        told.tell(&entry("b", 2).1);
        let (place, _) = entry("b", 2);
        for _ in 0..2 {
            told.not_kept(&place);
            assert_eq!(told.digest, of_one);
            assert!(told.lacks(&holds).is_empty());
        }
        // Until there is something else to say of it.
        let changed: Holds = [entry("a", 1), entry("b", 3)].into();
        let said = told.lacks(&changed);
        assert_eq!(said.len(), 1);
        told.tell(&said[0]);
        assert_ne!(told.digest, of_one);
        told.lacks(&Holds::new())
            .iter()
            .for_each(|entry| told.tell(entry));
        assert_eq!((told.digest, told.entries.len()), (SetDigest::default(), 0));
    }

    #[test]
    fn announcements_keep_their_bounds() {
        let entry = |index: usize, holding: &Holding| {
            let (_, mut entry) = entry(&format!("f{index}"), 1);
            entry.holding = holding.clone();
            entry
        };
        let part = |bytes: usize| Holding::Partial(vec![1; bytes]);
        for (count, holding, expected) in [
            (0, Holding::Complete, 0),
            (2 * ANNOUNCED_SWARMS_MAX + 1, Holding::Complete, 3),
            (3, part(ANNOUNCED_BITFIELD_BYTES_MAX), 3),
            (10, part(ANNOUNCED_BITFIELD_BYTES_MAX / 5), 2),
        ] {
            let entries: Vec<_> = (0..count).map(|index| entry(index, &holding)).collect();
            let batches = batches(entries.clone());
            assert_eq!(batches.len(), expected, "{count} of {holding:?}");
            assert_eq!(batches.concat(), entries);
            for swarms in batches {
                let announcement = Announcement {
                    number: 1,
                    addrs: Vec::new(),
                    anew: false,
                    swarms,
                };
                assert!(announcement.is_within_bounds());
                crate::wire::frame::encode(&Request::Announce(announcement)).unwrap();
            }
        }
    }

    #[test]
    fn loopback_is_announced_to_a_tracker_on_loopback_alone() {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for ip in loopback {
            assert!(is_announced(ip, any, true));
            assert!(!is_announced(ip, any, false));
        }
        let link_local: [IpAddr; 2] = ["169.254.1.1", "fe80::1"].map(|ip| ip.parse().unwrap());
        for ip in link_local {
            assert!(!is_announced(ip, any, true));
        }
        let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert!(!is_announced("2001:db8::1".parse().unwrap(), v4, false));
        assert!(is_announced("192.0.2.1".parse().unwrap(), v4, false));
    }
}
