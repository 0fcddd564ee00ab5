//! The files that are moved: random bytes, so that nothing on the way can make them fewer, and whether two are equal.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::Outcome;

/// Fills `path` with so many random MiB, unless it has as many already.
///
/// # Errors
/// If it cannot be written.
pub fn make_file(path: &Path, mib: u64) -> Outcome<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == mib << 20) {
        return Ok(());
    }
    let mut file = File::create(path)?;
    let mut block = vec![0; 1 << 20];
    for _ in 0..mib {
        rand::fill(&mut block[..]);
        file.write_all(&block)?;
    }
    Ok(())
}

/// Whether two files have the same bytes.
///
/// # Errors
/// If one cannot be read.
pub fn same(one: &Path, two: &Path) -> Outcome<bool> {
    let (mut one, mut two) = (File::open(one)?, File::open(two)?);
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = one.read(&mut a)?;
        if length == 0 {
            return Ok(two.read(&mut b)? == 0);
        }
        two.read_exact(&mut b[..length])?;
        if a[..length] != b[..length] {
            return Ok(false);
        }
    }
}
