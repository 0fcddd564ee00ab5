//! The files of groups: one row for each name, which says what the file is and which peers promised to keep
//! it. The last of them to stop sharing deletes the row in the same change; being offline changes nothing.

use super::{
    groups::Standing,
    rows::{self, FileKind, FileRow, Sharer},
    table::{self, Decision, Request},
};
use crate::{
    content::{FileId, Layout},
    dht::DhtNode,
    identity::{FileName, Role, UserName},
    limits::FILES_PAGE_MAX,
    time::Timestamp,
    wire::tracker::{Change, FileSummary, NewFile, Refusal},
};

/// The files of a ring.
pub(super) struct Files {
    dht: DhtNode,
}

/// A page of files; more may follow after `next`.
pub(super) struct FilePage {
    pub(super) files: Vec<FileSummary>,
    pub(super) next: Option<FileName>,
    pub(super) stale: bool,
}

impl Files {
    pub(super) const fn new(dht: DhtNode) -> Self {
        Self { dht }
    }

    /// Makes a file known to the group, with the peer that asks as its first sharer; for members.
    pub(super) async fn publish(
        &self,
        request: Request,
        user: &UserName,
        standing: &Standing,
        file: NewFile,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        Layout::new(file.size).map_err(|_| Refusal::BadRequest)?;
        let key = rows::file_key(&standing.name, &file.name);
        let row = FileRow::V1 {
            kind: FileKind::File,
            name: file.name.clone(),
            id: file.id,
            size: file.size,
            sha256: file.sha256,
            published: now,
            uploader: user.clone(),
            sharers: vec![Sharer {
                user: user.clone(),
                peer: request.peer,
            }],
        };
        table::change(
            &self.dht,
            &key,
            request,
            |found: Option<FileRow>| {
                standing.member()?;
                match found {
                    Some(_) => Err(Refusal::FileExists {
                        group: standing.name.clone(),
                        name: file.name.clone(),
                    }),
                    None => Ok(Decision::Put(Some(row.clone()), ())),
                }
            },
            |_| Ok(()),
        )
        .await
    }

    /// A page of the group's files after `after`; for readers.
    pub(super) async fn list(
        &self,
        standing: &Standing,
        after: Option<&FileName>,
    ) -> Result<FilePage, Refusal> {
        standing.reader()?;
        let partition = rows::file_partition(&standing.name);
        let listing = self
            .dht
            .list(
                partition.as_bytes(),
                after.map(|name| name.as_str().as_bytes().to_vec()),
                FILES_PAGE_MAX,
            )
            .await?;
        let mut files = Vec::new();
        for (_, row) in &listing.rows {
            files.extend(table::value_of::<FileRow>(row)?.map(summary));
        }
        let next = match listing.next {
            Some(last) => {
                let last = String::from_utf8(last).map_err(|_| Refusal::Internal)?;
                Some(FileName::new(&last).map_err(|_| Refusal::Internal)?)
            }
            None => None,
        };
        Ok(FilePage {
            files,
            next,
            stale: listing.stale,
        })
    }

    /// One file of the group; for readers.
    pub(super) async fn find(
        &self,
        standing: &Standing,
        name: &FileName,
    ) -> Result<FileSummary, Refusal> {
        standing.reader()?;
        self.row(standing, name).await.map(summary)
    }

    /// The layout of the file `id`, if the group has it under that name.
    pub(super) async fn layout(
        &self,
        standing: &Standing,
        name: &FileName,
        id: FileId,
    ) -> Result<Option<Layout>, Refusal> {
        match self.find(standing, name).await {
            Ok(file) if file.id == id => Ok(Layout::new(file.size).ok()),
            Ok(_) | Err(Refusal::FileNotFound { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The peer that asks has all of the file, and keeps it; for readers. Beyond the number of sharers that
    /// a row takes, nothing is kept of it, and nothing is lost: the peer still announces what it holds.
    pub(super) async fn add_sharer(
        &self,
        request: Request,
        user: &UserName,
        standing: &Standing,
        name: &FileName,
        id: FileId,
    ) -> Result<(), Refusal> {
        let sharer = Sharer {
            user: user.clone(),
            peer: request.peer,
        };
        let key = rows::file_key(&standing.name, name);
        let decide = |found: Option<FileRow>| {
            standing.reader()?;
            match found {
                None => Err(not_found(standing, name)),
                Some(FileRow::V1 { id: current, .. }) if current != id => {
                    Err(Refusal::FileReplaced {
                        group: standing.name.clone(),
                        name: name.clone(),
                    })
                }
                Some(row) => Ok(match row.with_sharer(&sharer) {
                    Some(row) => Decision::Put(Some(row), ()),
                    None => Decision::Keep(()),
                }),
            }
        };
        let add = |request| table::change(&self.dht, &key, request, decide, |_| Ok(()));
        match add(request).await {
            // Whoever is added twice is there once: what the row has forgotten of a retry does not matter.
            Err(Refusal::OutcomeUnknown) if request.change.retry => {
                let change = Change::new(request.change.request);
                add(Request { change, ..request }).await
            }
            added => added,
        }
    }

    /// The peer that asks, or with `for_all` everybody, shares the file no longer. Whether its entry went
    /// with that.
    pub(super) async fn stop(
        &self,
        request: Request,
        user: &UserName,
        standing: &Standing,
        name: &FileName,
        for_all: bool,
    ) -> Result<bool, Refusal> {
        let group = || standing.name.clone();
        table::change(
            &self.dht,
            &rows::file_key(&standing.name, name),
            request,
            |found: Option<FileRow>| {
                // Who may not read the group learns nothing of its files, but for those he shares himself.
                let shares = found
                    .as_ref()
                    .is_some_and(|row| row.has_sharer(request.peer));
                if !shares || for_all {
                    standing.reader()?;
                }
                let row = found.ok_or_else(|| not_found(standing, name))?;
                if for_all {
                    let FileRow::V1 { uploader, .. } = &row;
                    let published = uploader == user && standing.member().is_ok();
                    if !published && standing.role != Some(Role::Owner) {
                        return Err(Refusal::NotUploader {
                            group: group(),
                            name: name.clone(),
                        });
                    }
                    return Ok(Decision::Put(None, true));
                }
                match row.without_sharer(request.peer) {
                    Some(rest) => {
                        let gone = rest.is_none();
                        Ok(Decision::Put(rest, gone))
                    }
                    None => Err(Refusal::NotSharing {
                        group: group(),
                        name: name.clone(),
                    }),
                }
            },
            |found| Ok(found.is_none()),
        )
        .await
    }

    async fn row(&self, standing: &Standing, name: &FileName) -> Result<FileRow, Refusal> {
        table::read(&self.dht, &rows::file_key(&standing.name, name))
            .await?
            .ok_or_else(|| not_found(standing, name))
    }
}

fn not_found(standing: &Standing, name: &FileName) -> Refusal {
    Refusal::FileNotFound {
        group: standing.name.clone(),
        name: name.clone(),
    }
}

fn summary(row: FileRow) -> FileSummary {
    let FileRow::V1 {
        name,
        id,
        size,
        sha256,
        published,
        uploader,
        sharers,
        ..
    } = row;
    FileSummary {
        name,
        id,
        size,
        sha256,
        uploader,
        published,
        holders_online: 0,
        sharers: u32::try_from(sharers.len()).unwrap_or(u32::MAX),
    }
}
