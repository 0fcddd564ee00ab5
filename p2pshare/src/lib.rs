//! Group file sharing.
