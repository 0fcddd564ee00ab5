//! One request on its way round the trackers: what is known of it after each attempt, and so what may be said in
//! the end. A change that some tracker may have seen ends with a certain answer of its row, or as unknown.

use crate::{
    limits::TRACKER_ANSWER_TIMEOUT,
    peer::error::SessionError,
    wire::tracker::{Refusal, Request, Response},
};

/// How far one request has come.
pub(super) struct Asking {
    pub(super) began: tokio::time::Instant,
    /// Whether some tracker may have seen it.
    pub(super) sent: bool,
    /// Those that have said that they can do nothing; the others are asked first.
    pub(super) shunned: Vec<usize>,
    /// The best of what those have said.
    pub(super) said: Option<Result<Response, Refusal>>,
}

/// One attempt has led to nothing.
pub(super) enum Failed {
    /// The next one may.
    Again,
    /// The next one may, after a pause.
    Later,
    /// No other will.
    Over(SessionError),
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            began: tokio::time::Instant::now(),
            sent: false,
            shunned: Vec::new(),
            said: None,
        }
    }
}

impl Asking {
    /// Has the others be asked before this tracker; whether there is no other any more.
    pub(super) fn shun(&mut self, tracker: usize, count: usize) -> bool {
        if !self.shunned.contains(&tracker) {
            self.shunned.push(tracker);
        }
        let is_round = self.shunned.len() >= count;
        if is_round {
            self.shunned.clear();
        }
        is_round
    }

    /// All that can be reached have said that they can do nothing.
    pub(super) fn went_round(&mut self, query: &Request, unreachable: SessionError) -> Failed {
        self.shunned.clear();
        match &self.said {
            // Whoever turns a retry away unseen does not know what became of it; one who comes back may say it.
            Some(Err(_)) | None if self.may_be_done(query) => {
                match self.began.elapsed() < TRACKER_ANSWER_TIMEOUT {
                    true => Failed::Later,
                    false => Failed::Over(unreachable),
                }
            }
            Some(Err(refusal)) => Failed::Over(refusal.clone().into()),
            // What is said of it then is the answer that there is.
            Some(Ok(_)) => Failed::Over(unreachable),
            None => Failed::Later,
        }
    }

    pub(super) fn may_be_done(&self, query: &Request) -> bool {
        self.sent && query.changes_rows()
    }

    /// What is said in the end when the last attempt led to this.
    pub(super) fn end(
        self,
        query: &Request,
        error: SessionError,
    ) -> Result<Response, SessionError> {
        match (&error, self.said) {
            (SessionError::Unreachable { .. }, Some(Ok(response))) => Ok(response),
            (SessionError::Refused(refusal), _) if refusal.is_of_the_row() => Err(error),
            // What keeps us from asking again says nothing of what was asked before.
            _ if self.sent && query.changes_rows() => Err(SessionError::OutcomeUnknown),
            (SessionError::Unreachable { .. }, Some(Err(refusal))) => Err(refusal.into()),
            _ => Err(error),
        }
    }
}
