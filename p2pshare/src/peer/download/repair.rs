//! Mending a finished file where it stands: what is wrong in it is fetched as a download fetches, and nothing is
//! written that the file id does not commit to. Whenever it ends, what was right is right still.

use std::path::PathBuf;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    DownloadOptions, DownloadProgress, DownloadState, events,
    partial::Partial,
    run::{Job, Prepared, blocking},
};
use crate::{
    content::{Bitfield, FileId, Layout},
    identity::{FileName, GroupName},
    peer::{error::DownloadError, session::Session},
    wire::tracker::Refusal,
};

/// A finished file that is not right.
pub(in crate::peer) struct Repair {
    pub(in crate::peer) session: Session,
    pub(in crate::peer) group: GroupName,
    pub(in crate::peer) name: FileName,
    pub(in crate::peer) path: PathBuf,
    pub(in crate::peer) id: FileId,
    pub(in crate::peer) layout: Layout,
    /// Which chunks may be right; they are hashed again.
    pub(in crate::peer) claimed: Bitfield,
    /// Whether it is the length alone that is not right, so that nothing has to be fetched.
    pub(in crate::peer) only_length: bool,
    pub(in crate::peer) progress: watch::Sender<DownloadProgress>,
}

impl Repair {
    /// Fetches what is not right, and returns once it is on the disk. Dropping it leaves what was written so far.
    pub(in crate::peer) async fn run(self) -> Result<(), DownloadError> {
        let Self { layout, id, .. } = self;
        let job = Job {
            session: self.session,
            group: self.group,
            name: self.name,
            dest: self.path,
            options: DownloadOptions::default(),
            progress: self.progress,
            events: events::Sender::new(),
            cancel: CancellationToken::new(),
            collecting: tokio::sync::Mutex::default(),
        };
        let journal = job.session.peer().journal();
        let dest = job.dest.clone();
        let Some(reserved) = journal.reserve(&dest) else {
            return Err(DownloadError::AlreadyRunning { dest });
        };
        let file = job.find().await?;
        if file.id != id {
            let (group, name) = (job.group, job.name);
            return Err(Refusal::FileReplaced { group, name }.into());
        }
        let look = match self.only_length {
            true => None,
            false => Some(job.look_for_holders(&file).await?),
        };
        let open = move || Partial::open_in_place(&dest, layout, reserved);
        let partial = blocking(open).await??;
        let mut prepared = Prepared {
            file,
            layout,
            partial,
            had: self.claimed,
            row: None,
        };
        let (_, _, serving) = job.fill(&mut prepared, look, Instant::now()).await?;
        job.progress
            .send_modify(|progress| progress.state = DownloadState::Finishing);
        let synced = blocking(move || {
            prepared.partial.cut()?;
            prepared.partial.sync()
        })
        .await?;
        drop(serving);
        synced
    }
}
