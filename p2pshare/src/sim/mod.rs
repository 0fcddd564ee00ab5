//! The ring in a world of its own.

mod history;
mod linearizable;
