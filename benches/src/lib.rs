//! What the benches of p2pshare share: the hot paths are measured in `benches/`, the whole by the programs in
//! `src/bin/`, beside something that is known where there is such a thing.

pub mod etcd;
pub mod files;
pub mod plain_quinn;
pub mod process;
pub mod ring_of;
pub mod trackers;

/// What a measurement comes to, which ends with the first thing that goes wrong.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What follows `name` among the arguments of this program.
///
/// # Errors
/// If it cannot be read as what it has to be.
pub fn flag<T: std::str::FromStr>(name: &str) -> Outcome<Option<T>> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    let read = |text: String| {
        text.parse()
            .map_err(|_| format!("{name} {text}: no such").into())
    };
    args.next().map(read).transpose()
}

/// The value in the middle; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    at(values, 0.5)
}

/// The value that a share of all are not above: 0.5 for the median, 1.0 for the greatest; 0 of none.
pub fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    let place = (last * share).round() as usize;
    values.get(place).copied().unwrap_or(0.0)
}
