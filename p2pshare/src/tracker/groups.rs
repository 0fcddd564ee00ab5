//! Groups and who is in them. The owner stands in the group's row alone and is a member by that; everybody
//! else who ever asked has one row, and each act (ask, accept, reject, leave, remove) is one
//! compare-and-set of that row, so that two of them at once cannot both be done.

use super::{
    rows::{self, GroupRow, MemberState, Membership},
    table::{self, Decision, Request},
};
use crate::{
    dht::{DhtNode, ScanCursor},
    identity::{GroupName, Role, UserName},
    limits::{GROUPS_PAGE_MAX, SCAN_PAGE_ROWS},
    time::Timestamp,
    wire::tracker::{Access, GroupSummary, JoinOutcome, Refusal},
};

/// The groups of a ring.
pub(super) struct Groups {
    dht: DhtNode,
}

/// A group and what one user is in it.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) name: GroupName,
    pub(super) owner: UserName,
    pub(super) access: Access,
    /// Owner, member, or nothing.
    pub(super) role: Option<Role>,
}

/// A page of groups; an empty `next` ends the list.
pub(super) struct GroupPage {
    pub(super) groups: Vec<GroupSummary>,
    pub(super) next: Vec<u8>,
    pub(super) stale: bool,
}

impl Standing {
    /// As the group's row alone has it.
    fn of(user: &UserName, row: GroupRow) -> Self {
        let GroupRow::V1 {
            name,
            owner,
            access,
            ..
        } = row;
        Self {
            role: (owner == *user).then_some(Role::Owner),
            name,
            owner,
            access,
        }
    }

    /// As what the user may read the group: as a guest, too, if it is open.
    pub(super) fn reader(&self) -> Result<Role, Refusal> {
        match (self.role, self.access) {
            (Some(role), _) => Ok(role),
            (None, Access::Open) => Ok(Role::Guest),
            (None, Access::Members) => Err(self.not_a_member()),
        }
    }

    /// Whether the user may add to the group.
    pub(super) fn member(&self) -> Result<(), Refusal> {
        match self.role {
            Some(Role::Owner | Role::Member) => Ok(()),
            Some(Role::Guest) | None => Err(self.not_a_member()),
        }
    }

    fn owner(&self) -> Result<(), Refusal> {
        match self.role {
            Some(Role::Owner) => Ok(()),
            _ => Err(Refusal::NotOwner {
                group: self.name.clone(),
            }),
        }
    }

    fn not_a_member(&self) -> Refusal {
        Refusal::NotAMember {
            group: self.name.clone(),
        }
    }
}

impl Groups {
    pub(super) const fn new(dht: DhtNode) -> Self {
        Self { dht }
    }

    /// Makes a group. The name is taken once, ever.
    pub(super) async fn create(
        &self,
        request: Request,
        owner: &UserName,
        group: &GroupName,
        access: Access,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let row = GroupRow::V1 {
            name: group.clone(),
            owner: owner.clone(),
            access,
            created: now,
        };
        table::change(
            &self.dht,
            &rows::group_key(group),
            request,
            |found: Option<GroupRow>| match found {
                Some(_) => Err(Refusal::GroupExists {
                    group: group.clone(),
                }),
                None => Ok(Decision::Put(Some(row.clone()), ())),
            },
            |_| Ok(()),
        )
        .await
    }

    /// What `user` is in `group`, by majority reads that begin now.
    pub(super) async fn standing(
        &self,
        user: &UserName,
        group: &GroupName,
    ) -> Result<Standing, Refusal> {
        let row = table::read(&self.dht, &rows::group_key(group))
            .await?
            .ok_or_else(|| Refusal::GroupNotFound {
                group: group.clone(),
            })?;
        let mut standing = Standing::of(user, row);
        if standing.role.is_none() {
            let row = table::read(&self.dht, &rows::member_key(group, user)).await?;
            standing.role = role_by(row.as_ref());
        }
        Ok(standing)
    }

    /// The same as far as this tracker knows; `None` if it does not know the group. For what is shown as stale alone.
    pub(super) async fn known_standing(
        &self,
        user: &UserName,
        group: &GroupName,
    ) -> Result<Option<Standing>, Refusal> {
        let Some(row) = table::known(&self.dht, &rows::group_key(group)).await? else {
            return Ok(None);
        };
        let mut standing = Standing::of(user, row);
        if standing.role.is_none() {
            let row = table::known(&self.dht, &rows::member_key(group, user)).await?;
            standing.role = role_by(row.as_ref());
        }
        Ok(Some(standing))
    }

    /// A page of all groups from `cursor` on, as `user` sees them.
    pub(super) async fn list(&self, user: &UserName, cursor: &[u8]) -> Result<GroupPage, Refusal> {
        let cursor = match cursor {
            [] => None,
            bytes => Some(ScanCursor::from_bytes(bytes).ok_or(Refusal::BadRequest)?),
        };
        let prefix = rows::GROUP_PARTITION.as_bytes();
        let scan = self.dht.scan_heads(prefix, cursor, GROUPS_PAGE_MAX).await?;
        let (mut groups, mut stale) = (Vec::new(), scan.stale);
        for (_, row) in &scan.rows {
            if let Some(row) = table::value_of::<GroupRow>(row)? {
                let (summary, of_old) = self.summary(user, row).await?;
                groups.push(summary);
                stale |= of_old;
            }
        }
        Ok(GroupPage {
            groups,
            next: scan.next.map(|next| next.to_bytes()).unwrap_or_default(),
            stale,
        })
    }

    /// A group as `asking` sees it, and whether that may be old.
    async fn summary(
        &self,
        asking: &UserName,
        group: GroupRow,
    ) -> Result<(GroupSummary, bool), Refusal> {
        let GroupRow::V1 {
            name,
            owner,
            access,
            ..
        } = group;
        let mut summary = GroupSummary {
            role: (owner == *asking).then_some(Role::Owner),
            name,
            owner,
            access,
            members: 1,
            pending: false,
        };
        let (mut after, mut stale) = (None, false);
        loop {
            let page = self.members(&summary.name, after.as_deref()).await?;
            stale |= page.stale;
            for Membership::V1 { user, state, .. } in page.members {
                if user == summary.owner {
                    continue;
                }
                match state {
                    MemberState::Member => {
                        summary.members += 1;
                        if user == *asking {
                            summary.role = Some(Role::Member);
                        }
                    }
                    MemberState::Pending => summary.pending |= user == *asking,
                    MemberState::Left | MemberState::Removed => {}
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((summary, stale)),
            }
        }
    }

    /// A page of the rows of those who ever asked, after the sort key `after`.
    async fn members(&self, group: &GroupName, after: Option<&str>) -> Result<MemberPage, Refusal> {
        let partition = rows::group_partition(group);
        let after = after.unwrap_or(rows::MEMBER_SORT).as_bytes().to_vec();
        let listing = self
            .dht
            .list(partition.as_bytes(), Some(after), SCAN_PAGE_ROWS)
            .await?;
        let mut members = Vec::new();
        for (_, row) in &listing.rows {
            members.extend(table::value_of(row)?);
        }
        let next = match listing.next {
            Some(next) => Some(String::from_utf8(next).map_err(|_| Refusal::Internal)?),
            None => None,
        };
        Ok(MemberPage {
            members,
            next,
            stale: listing.stale,
        })
    }

    /// Asks to join, or joins if the group is open.
    pub(super) async fn join(
        &self,
        request: Request,
        user: &UserName,
        group: &GroupName,
        now: Timestamp,
    ) -> Result<JoinOutcome, Refusal> {
        let standing = self.standing(user, group).await?;
        let already = || Refusal::AlreadyMember {
            group: standing.name.clone(),
        };
        let owner = standing.owner.clone();
        let open = standing.access == Access::Open;
        let put = |state, outcome| {
            let row = Membership::V1 {
                user: user.clone(),
                state,
                since: now,
            };
            Ok(Decision::Put(Some(row), outcome))
        };
        let requested = || JoinOutcome::Requested {
            owner: owner.clone(),
        };
        table::change(
            &self.dht,
            &rows::member_key(group, user),
            request,
            |found: Option<Membership>| match found.as_ref().map(state_of) {
                _ if standing.role == Some(Role::Owner) => Err(already()),
                Some(MemberState::Member) => Err(already()),
                Some(MemberState::Pending) if !open => {
                    Ok(Decision::Keep(JoinOutcome::AlreadyPending {
                        owner: owner.clone(),
                    }))
                }
                _ if open => put(MemberState::Member, JoinOutcome::Joined),
                _ => put(MemberState::Pending, requested()),
            },
            |found| match found.as_ref().map(state_of) {
                Some(MemberState::Member) => Ok(JoinOutcome::Joined),
                _ => Ok(requested()),
            },
        )
        .await
    }

    /// Who asked to join, after the user `after`; for the owner.
    pub(super) async fn requests(
        &self,
        user: &UserName,
        group: &GroupName,
        after: Option<&UserName>,
    ) -> Result<(Vec<UserName>, Option<UserName>), Refusal> {
        self.standing(user, group).await?.owner()?;
        let after = after.map(rows::member_sort);
        let page = self.members(group, after.as_deref()).await?;
        if page.stale {
            // An owner decides by this: the ring was lost since the look at who owns the group.
            return Err(Refusal::Busy);
        }
        let last = page
            .members
            .last()
            .map(|Membership::V1 { user, .. }| user.clone());
        let pending = page
            .members
            .into_iter()
            .filter(|row| state_of(row) == MemberState::Pending)
            .map(|Membership::V1 { user, .. }| user)
            .collect();
        Ok((pending, last.filter(|_| page.next.is_some())))
    }

    /// Accepts or rejects `user`; for the owner.
    pub(super) async fn decide(
        &self,
        request: Request,
        owner: &UserName,
        group: &GroupName,
        user: &UserName,
        accept: bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let standing = self.standing(owner, group).await?;
        let may = standing.owner();
        let to = if accept {
            MemberState::Member
        } else {
            MemberState::Removed
        };
        let refusal = Refusal::NoPendingRequest {
            group: standing.name,
            user: user.clone(),
        };
        let step = (MemberState::Pending, to);
        self.transition(request, group, user, may, step, now, refusal)
            .await
    }

    /// Ends the membership of `user`, who asks for it.
    pub(super) async fn leave(
        &self,
        request: Request,
        user: &UserName,
        group: &GroupName,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let standing = self.standing(user, group).await?;
        let refusal = standing.not_a_member();
        let may = match standing.role {
            Some(Role::Owner) => Err(Refusal::OwnerCannotLeave {
                group: standing.name,
            }),
            _ => Ok(()),
        };
        let step = (MemberState::Member, MemberState::Left);
        self.transition(request, group, user, may, step, now, refusal)
            .await
    }

    /// Ends the membership of `user`; for the owner.
    pub(super) async fn remove(
        &self,
        request: Request,
        owner: &UserName,
        group: &GroupName,
        user: &UserName,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let standing = self.standing(owner, group).await?;
        let may = match standing.owner() {
            Ok(()) if user == owner => Err(Refusal::OwnerCannotBeRemoved {
                group: standing.name.clone(),
            }),
            may => may,
        };
        let refusal = Refusal::UserNotAMember {
            group: standing.name,
            user: user.clone(),
        };
        let step = (MemberState::Member, MemberState::Removed);
        self.transition(request, group, user, may, step, now, refusal)
            .await
    }

    /// Makes the member `to` the owner; for the owner, who stays a member, unless he left or was removed at
    /// the moment in which he became the owner.
    pub(super) async fn transfer(
        &self,
        request: Request,
        owner: &UserName,
        group: &GroupName,
        to: &UserName,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let group_key = rows::group_key(group);
        if table::was_done(&self.dht, &group_key, request).await? {
            return Ok(());
        }
        let standing = self.standing(owner, group).await?;
        standing.owner()?;
        if self.standing(to, group).await?.member().is_err() {
            let refused = |_: Option<GroupRow>| {
                Err(Refusal::UserNotAMember {
                    group: standing.name.clone(),
                    user: to.clone(),
                })
            };
            return table::change(&self.dht, &group_key, request, refused, |_| Ok(())).await;
        }
        // First the old owner's own membership, which changes nothing while it owns the group; then the
        // group's row, which alone decides who does. Between the two everything is as it was.
        let own = Membership::V1 {
            user: owner.clone(),
            state: MemberState::Member,
            since: now,
        };
        table::change(
            &self.dht,
            &rows::member_key(group, owner),
            request,
            |found: Option<Membership>| match found {
                None => Ok(Decision::Put(Some(own.clone()), ())),
                // Whoever was once a member has one. If it says that he is none, he left, or was removed, just when the
                // group was given to him: he owns it all the same, and once he does not, he is what he was told then.
                Some(_) => Ok(Decision::Keep(())),
            },
            |_| Ok(()),
        )
        .await?;
        table::change(
            &self.dht,
            &group_key,
            request,
            |found: Option<GroupRow>| match found {
                Some(GroupRow::V1 {
                    name,
                    owner: current,
                    access,
                    created,
                }) if current == *owner => Ok(Decision::Put(
                    Some(GroupRow::V1 {
                        name,
                        owner: to.clone(),
                        access,
                        created,
                    }),
                    (),
                )),
                _ => Err(Refusal::NotOwner {
                    group: group.clone(),
                }),
            },
            |_| Ok(()),
        )
        .await
    }

    /// Takes the membership of `user` a step, if the one who asks `may`. What was done before is so, whoever may
    /// what since.
    #[expect(
        clippy::too_many_arguments,
        reason = "the row, the step, whether it may be taken, and what to say if it is none"
    )]
    async fn transition(
        &self,
        request: Request,
        group: &GroupName,
        user: &UserName,
        may: Result<(), Refusal>,
        (from, to): (MemberState, MemberState),
        now: Timestamp,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        table::change(
            &self.dht,
            &rows::member_key(group, user),
            request,
            |found: Option<Membership>| {
                may.clone()?;
                match found {
                    Some(Membership::V1 { user, state, .. }) if state == from => Ok(Decision::Put(
                        Some(Membership::V1 {
                            user,
                            state: to,
                            since: now,
                        }),
                        (),
                    )),
                    _ => Err(refusal.clone()),
                }
            },
            |_| Ok(()),
        )
        .await
    }
}

/// Some rows of members; more may follow after the sort key `next`.
struct MemberPage {
    members: Vec<Membership>,
    next: Option<String>,
    stale: bool,
}

/// What a membership makes of a user who is not the owner.
fn role_by(membership: Option<&Membership>) -> Option<Role> {
    membership
        .filter(|row| state_of(row) == MemberState::Member)
        .map(|_| Role::Member)
}

const fn state_of(row: &Membership) -> MemberState {
    let Membership::V1 { state, .. } = row;
    *state
}
