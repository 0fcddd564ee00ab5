//! The end of a download: the whole file in its place, and shared from there, whether it was put there now or stood
//! there before. Nothing else that stands there is touched unasked.

use std::sync::Arc;

use super::{
    partial::{Known, Partial},
    run::{Job, Prepared, blocking},
};
use crate::{
    peer::{
        error::{DownloadError, SessionError},
        file::Stamp,
        library::NewShare,
        session::new_change,
        share,
    },
    wire::tracker::{FileSummary, Refusal, Request},
};

impl Job {
    /// Whether the destination has this very content already; then it is shared from there.
    pub(super) async fn is_there(&self, file: &FileSummary) -> Result<bool, DownloadError> {
        let Ok(metadata) = std::fs::symlink_metadata(&self.dest) else {
            return Ok(false);
        };
        let _pinned = self.session.peer().library().pin(file.id);
        let same = metadata.is_file() && metadata.len() == file.size && {
            let dest = self.dest.clone();
            let (id, cancel) = (file.id, self.cancel.clone());
            let take_in = move || share::take_in_quietly(&dest, &cancel);
            let taken_in = tokio::task::spawn_blocking(take_in).await;
            match taken_in {
                Ok(Ok(taken_in)) if taken_in.id() == id => {
                    if self.options.check_sha256 && taken_in.sha256() != file.sha256 {
                        let name = self.name.clone();
                        return Err(DownloadError::Sha256Mismatch { name });
                    }
                    taken_in.keep_pages(self.session.peer().library()).await?;
                    true
                }
                _ => false,
            }
        };
        if same {
            self.share_from_here(file).await?;
            self.end_earlier_run(file).await?;
        } else if !self.options.force {
            return Err(DownloadError::DestinationExists {
                dest: self.dest.clone(),
            });
        }
        Ok(same)
    }

    /// The destination has the whole: an earlier run that the journal believes unfinished is over, as when it
    /// was killed right after it had put the file in place.
    async fn end_earlier_run(&self, file: &FileSummary) -> Result<(), DownloadError> {
        let journal = self.session.peer().journal();
        let known = journal.known(&self.dest).await?;
        // One of another file is not: what it has is not what is here.
        if known == Known::None || !journal.is_of(&self.dest, file.id).await? {
            return Ok(());
        }
        if let Known::Made(mark) = known {
            let dest = self.dest.clone();
            blocking(move || Partial::discard(&dest, mark)).await?;
        }
        Ok(journal.complete(self.row(file), &self.dest).await?)
    }

    /// Checks the SHA-256 if that was asked for, renames the file to its destination, and shares it.
    pub(super) async fn put_in_place(
        &self,
        prepared: Prepared,
    ) -> Result<FileSummary, DownloadError> {
        let Prepared {
            file, partial, row, ..
        } = prepared;
        let (options, expected, name) = (self.options, file.sha256, self.name.clone());
        let cancel = self.cancel.clone();
        blocking(move || {
            if options.check_sha256 && partial.sha256(&cancel)? != expected {
                return Err(DownloadError::Sha256Mismatch { name });
            }
            if cancel.is_cancelled() {
                return Err(DownloadError::Cancelled);
            }
            partial.put_in_place(options.force)
        })
        .await??;
        if let Some(row) = row {
            let journal = self.session.peer().journal();
            journal.complete(row, &self.dest).await?;
        }
        self.share_from_here(&file).await?;
        Ok(file)
    }

    /// Shares the finished file from its destination, unless this peer shares it from elsewhere already.
    async fn share_from_here(&self, file: &FileSummary) -> Result<(), DownloadError> {
        let peer = self.session.peer();
        let library = peer.library();
        let shared = library.get(&self.group, &file.name);
        let reserved = library.reserve(&self.group, &file.name);
        if reserved.is_none() {
            // Somebody else at this peer is at it; the file is here all the same.
            return Ok(());
        }
        if shared.is_none_or(|share| share.id != file.id || share.is_changed()) {
            let dest = self.dest.clone();
            let stamped = blocking(move || {
                let path = dest.canonicalize()?;
                let stamp = Stamp::of(&std::fs::metadata(&path)?);
                Ok::<_, std::io::Error>((path, stamp))
            })
            .await?;
            let (path, stamp) = stamped.map_err(|cause| DownloadError::Io {
                path: self.dest.clone(),
                cause: Arc::new(cause),
            })?;
            if stamp.size != file.size {
                // Somebody else was at it in the meantime; what they made of it is theirs.
                return Ok(());
            }
            library
                .add(NewShare {
                    group: self.group.clone(),
                    name: file.name.clone(),
                    id: file.id,
                    sha256: file.sha256,
                    path,
                    stamp,
                    recorded: false,
                })
                .await?;
        }
        let added = self
            .session
            .done(Request::AddSharer {
                change: new_change(),
                group: self.group.clone(),
                name: file.name.clone(),
                id: file.id,
            })
            .await;
        match added {
            Ok(()) => {
                if let Some(share) = library.get(&self.group, &file.name) {
                    library.note_recorded(&share).await?;
                }
                peer.announce(&self.group, &file.name).await;
            }
            Err(SessionError::Refused(
                Refusal::FileNotFound { .. }
                | Refusal::FileReplaced { .. }
                | Refusal::NotAMember { .. },
            )) => {
                library.remove(&self.group, &file.name, file.id).await?;
            }
            // The file is here all the same; once it is announced, this is asked for again.
            Err(error) => {
                tracing::info!(%error, name = %file.name, "not noted as a sharer yet");
                library.publish(&self.group, &file.name);
            }
        }
        Ok(())
    }
}
