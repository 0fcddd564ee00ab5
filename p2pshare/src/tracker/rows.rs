//! What the tracker keeps in the ring, and under which keys: one row for each thing that changes by itself.
//!
//! | partition | sort key | value |
//! |---|---|---|
//! | `u/<user>` | `account` | [`Account`] |
//! | `u/<user>` | `session/<peer>` | [`SessionRow`], one for each peer that ever logged in |
//! | `g/<group>` | `group` | [`GroupRow`]; its owner is a member by that alone |
//! | `g/<group>` | `member/<user>` | [`Membership`], one for each who ever asked |
//! | `f/<group>` | the name | [`FileRow`], one for each name ever used |
//!
//! Names of users and groups are folded to lower case in keys, and kept as created in values.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    content::{Digest, FileId},
    identity::{FileName, GroupName, PeerId, SessionId, UserName},
    limits::SHARERS_MAX,
    time::Timestamp,
    wire::{ring::RowKey, tracker::Access},
};

/// The partitions of groups begin with this; the first row of each is the group's own.
pub(super) const GROUP_PARTITION: &str = "g/";
/// The sort keys of memberships begin with this.
pub(super) const MEMBER_SORT: &str = "member/";

/// A value of a row.
pub(super) trait RowValue: Serialize + DeserializeOwned {}

/// An account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Account {
    V1 {
        name: UserName,
        /// As a PHC string: algorithm, parameters, salt and hash.
        password_hash: String,
        /// Raised when the password changes: credentials of an older one end.
        generation: u64,
        created: Timestamp,
    },
}

/// A login of a user from one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum SessionRow {
    V1 {
        session: SessionId,
        generation: u64,
        begun: Timestamp,
    },
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum GroupRow {
    V1 {
        name: GroupName,
        owner: UserName,
        access: Access,
        created: Timestamp,
    },
}

/// What somebody other than by owning is to a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Membership {
    V1 {
        user: UserName,
        state: MemberState,
        since: Timestamp,
    },
}

/// The states of a membership; a request that is rejected ends as removed.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum MemberState {
    Pending,
    Member,
    Left,
    Removed,
}

/// A file of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FileRow {
    V1 {
        kind: FileKind,
        name: FileName,
        id: FileId,
        size: u64,
        sha256: Digest,
        published: Timestamp,
        uploader: UserName,
        /// The uploader's peer first, then others that hold all of it; at most [`SHARERS_MAX`].
        sharers: Vec<Sharer>,
    },
}

/// What kind of thing a file row is of.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum FileKind {
    File,
}

/// A peer that promised to keep a file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Sharer {
    pub(super) user: UserName,
    pub(super) peer: PeerId,
}

impl RowValue for Account {}
impl RowValue for SessionRow {}
impl RowValue for GroupRow {}
impl RowValue for Membership {}
impl RowValue for FileRow {}

pub(super) fn account_key(user: &UserName) -> RowKey {
    key(user_partition(user), "account".into())
}

pub(super) fn session_key(user: &UserName, peer: PeerId) -> RowKey {
    key(user_partition(user), format!("session/{peer}"))
}

pub(super) fn group_key(group: &GroupName) -> RowKey {
    key(group_partition(group), "group".into())
}

pub(super) fn member_key(group: &GroupName, user: &UserName) -> RowKey {
    key(group_partition(group), member_sort(user))
}

pub(super) fn file_key(group: &GroupName, name: &FileName) -> RowKey {
    key(file_partition(group), name.as_str().to_owned())
}

pub(super) fn user_partition(user: &UserName) -> String {
    format!("u/{}", user.folded())
}

pub(super) fn group_partition(group: &GroupName) -> String {
    format!("{GROUP_PARTITION}{}", group.folded())
}

pub(super) fn file_partition(group: &GroupName) -> String {
    format!("f/{}", group.folded())
}

pub(super) fn member_sort(user: &UserName) -> String {
    format!("{MEMBER_SORT}{}", user.folded())
}

fn key(partition: String, sort: String) -> RowKey {
    #[expect(
        clippy::expect_used,
        reason = "names are bounded, and with what is put before them far below what a key takes"
    )]
    RowKey::new(partition, sort).expect("names fit into keys")
}

impl FileRow {
    /// This row with `sharer` in it, or `None` when it is there already or there is no place left.
    pub(super) fn with_sharer(&self, sharer: &Sharer) -> Option<Self> {
        let mut row = self.clone();
        let Self::V1 { sharers, .. } = &mut row;
        if sharers.len() >= SHARERS_MAX || self.has_sharer(sharer.peer) {
            return None;
        }
        sharers.push(sharer.clone());
        Some(row)
    }

    /// Whether `peer` is a sharer.
    pub(super) fn has_sharer(&self, peer: PeerId) -> bool {
        let Self::V1 { sharers, .. } = self;
        sharers.iter().any(|known| known.peer == peer)
    }

    /// This row without `peer`: `Some(None)` when it was the last sharer, `None` when it is no sharer.
    pub(super) fn without_sharer(&self, peer: PeerId) -> Option<Option<Self>> {
        let mut row = self.clone();
        let Self::V1 { sharers, .. } = &mut row;
        let before = sharers.len();
        sharers.retain(|known| known.peer != peer);
        match sharers.len() {
            after if after == before => None,
            0 => Some(None),
            _ => Some(Some(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, assert_every_variant, variants};

    variants!(Account { V1 });
    variants!(SessionRow { V1 });
    variants!(GroupRow { V1 });
    variants!(Membership { V1 });
    variants!(MemberState {
        Pending,
        Member,
        Left,
        Removed,
    });
    variants!(FileRow { V1 });
    variants!(FileKind { File });

    #[test]
    fn golden_bytes() {
        let time = Timestamp::from_millis(1_700_000_000_000);
        let (alice, photos) = (
            UserName::new("Alice").unwrap(),
            GroupName::new("Photos").unwrap(),
        );
        let account = Account::V1 {
            name: alice.clone(),
            password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned(),
            generation: 300,
            created: time,
        };
        let session = SessionRow::V1 {
            session: SessionId::from_bytes([0xdd; 16]),
            generation: 300,
            begun: time,
        };
        let group = |access| GroupRow::V1 {
            name: photos.clone(),
            owner: alice.clone(),
            access,
            created: time,
        };
        let states = [
            ("pending", MemberState::Pending),
            ("member", MemberState::Member),
            ("left", MemberState::Left),
            ("removed", MemberState::Removed),
        ];
        assert_every_variant(states.iter().map(|(_, state)| state));
        let memberships = states.map(|(name, state)| {
            let row = Membership::V1 {
                user: alice.clone(),
                state,
                since: time,
            };
            (name, row)
        });
        let groups = [
            ("for_members", group(Access::Members)),
            ("open", group(Access::Open)),
        ];
        let mut golden = Golden::open("tracker_rows");
        golden.values("account", &[("of_alice", account)]);
        golden.values("session", &[("of_alice", session)]);
        golden.values("group", &groups);
        golden.values("membership", &memberships);
        golden.values("file", &[("shared", row(vec![sharer(1), sharer(2)]))]);
        golden.finish();
    }

    #[test]
    fn keys_are_what_they_were() {
        let (alice, photos) = (
            UserName::new("Alice").unwrap(),
            GroupName::new("Photos").unwrap(),
        );
        let peer = PeerId::from_bytes([0xee; 32]);
        let keys = [
            (account_key(&alice), "u/alice", "account".to_owned()),
            (
                session_key(&alice, peer),
                "u/alice",
                format!("session/{}", "ee".repeat(32)),
            ),
            (group_key(&photos), "g/photos", "group".to_owned()),
            (
                member_key(&photos, &alice),
                "g/photos",
                "member/alice".to_owned(),
            ),
            (
                file_key(&photos, &FileName::new("A.jpg").unwrap()),
                "f/photos",
                "A.jpg".to_owned(),
            ),
        ];
        for (key, partition, sort) in keys {
            assert_eq!(
                (key.partition(), key.sort()),
                (partition.as_bytes(), sort.as_bytes())
            );
        }
    }

    fn sharer(n: u8) -> Sharer {
        Sharer {
            user: UserName::new("bob").unwrap(),
            peer: PeerId::from_bytes([n; 32]),
        }
    }

    fn row(sharers: Vec<Sharer>) -> FileRow {
        FileRow::V1 {
            kind: FileKind::File,
            name: FileName::new("x").unwrap(),
            id: FileId::from_bytes([1; 32]),
            size: 1,
            sha256: Digest::from_bytes([2; 32]),
            published: Timestamp::from_millis(3),
            uploader: UserName::new("alice").unwrap(),
            sharers,
        }
    }

    #[test]
    fn sharers_come_once_and_the_last_one_takes_the_row_along() {
        let one = row(vec![sharer(1)]);
        assert_eq!(one.with_sharer(&sharer(1)), None);
        let two = one.with_sharer(&sharer(2)).unwrap();
        assert_eq!(two, row(vec![sharer(1), sharer(2)]));
        assert_eq!(
            two.without_sharer(sharer(1).peer),
            Some(Some(row(vec![sharer(2)])))
        );
        assert_eq!(one.without_sharer(sharer(1).peer), Some(None));
        assert_eq!(one.without_sharer(sharer(9).peer), None);
    }

    #[test]
    fn the_number_of_sharers_is_bounded() {
        let full = row((0..32).map(sharer).collect());
        assert_eq!(full.with_sharer(&sharer(99)), None);
    }
}
