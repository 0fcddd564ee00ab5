//! x
#[cfg(test)]
mod exhaustive;
mod history;
mod linearizable;
