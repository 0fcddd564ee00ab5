//! Which ring was behind which tracker: trust on first use, as with SSH's known hosts. A ring that is not the
//! one known is refused loudly before anything secret is sent, unless the list of trackers pins the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use p2pshare::{RingId, TrackerAddr, TrackerList};

use super::{Home, replace};
use crate::exit_code::ExitCode;
use crate::failure::Failure;

impl Home {
    /// Decides whether `found`, the ring behind `tracker`, is the one that `list` has to lead to, and remembers it.
    ///
    /// # Errors
    /// When the list pins another ring, or pins none and another ring is known for one of its trackers.
    pub(crate) async fn trust_ring(
        &self,
        list: &TrackerList,
        tracker: &TrackerAddr,
        found: RingId,
    ) -> Result<(), Failure> {
        let known = self.known_rings()?;
        match list.ring() {
            Some(pinned) if pinned != found => {
                return Err(changed(tracker, pinned, found).hint(
                    "the list of trackers pins the first; if the ring was founded anew on purpose, mend its line 'ring'",
                ));
            }
            Some(_) => {}
            None => {
                let other = list.addrs().iter().chain([tracker]).find_map(|addr| {
                    known
                        .get(addr)
                        .filter(|ring| **ring != found)
                        .map(|ring| (addr, *ring))
                });
                if let Some((addr, ring)) = other {
                    let file = self.known_rings_file();
                    return Err(changed(tracker, ring, found).hint(format!(
                        "somebody may be posing as the tracker; if the ring was founded anew on purpose, remove the line of {addr} from {}",
                        file.display()
                    )));
                }
            }
        }
        if known.get(tracker) != Some(&found) {
            let _lock = self.lock().await?;
            let mut known = self.known_rings()?;
            known.insert(tracker.clone(), found);
            let file = self.known_rings_file();
            replace(&file, &to_text(&known))
                .map_err(|error| Failure::io(file.display(), &error))?;
        }
        Ok(())
    }

    /// The rings that the trackers of a list are known to belong to, or the one that it pins.
    ///
    /// # Errors
    /// When what is known cannot be read.
    pub(crate) fn rings_of(&self, list: &TrackerList) -> Result<Vec<RingId>, Failure> {
        if let Some(pinned) = list.ring() {
            return Ok(vec![pinned]);
        }
        let known = self.known_rings()?;
        let rings = list.addrs().iter().filter_map(|addr| known.get(addr));
        Ok(rings.copied().collect())
    }

    /// What cannot be read is an error: taken for nothing, it would let any ring be trusted.
    fn known_rings(&self) -> Result<BTreeMap<TrackerAddr, RingId>, Failure> {
        let file = self.known_rings_file();
        match fs::read_to_string(&file) {
            Ok(text) => Ok(from_text(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(Failure::io(
                format!("cannot read the known rings {}", file.display()),
                &error,
            )
            .hint("mend it, or remove it to trust the next ring that answers")),
        }
    }

    fn known_rings_file(&self) -> PathBuf {
        self.path.join("known_rings")
    }
}

fn changed(tracker: &TrackerAddr, known: RingId, found: RingId) -> Failure {
    let message = format!(
        "THE RING BEHIND {tracker} IS NOT THE ONE KNOWN; nothing was sent to it (known {known}, found {found})"
    );
    Failure::new(ExitCode::Denied, message)
}

/// Lines that cannot be read are skipped: the user edits this file.
fn from_text(text: &str) -> BTreeMap<TrackerAddr, RingId> {
    let entry = |line: &str| {
        let (addr, ring) = line.split_once(' ')?;
        Some((addr.parse().ok()?, ring.trim().parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn to_text(known: &BTreeMap<TrackerAddr, RingId>) -> String {
    known
        .iter()
        .map(|(addr, ring)| format!("{addr} {ring}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> TrackerList {
        text.parse().unwrap()
    }

    fn addr(text: &str) -> TrackerAddr {
        text.parse().unwrap()
    }

    fn ring(n: u8) -> RingId {
        RingId::from_bytes([n; 32])
    }

    #[tokio::test]
    async fn the_first_ring_is_trusted_and_no_other_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        let (trackers, first) = (list("a:1\nb:1"), addr("a:1"));
        home.trust_ring(&trackers, &first, ring(1)).await.unwrap();
        home.trust_ring(&trackers, &first, ring(1)).await.unwrap();
        assert_eq!(home.rings_of(&trackers).unwrap(), [ring(1)]);
        let refusal = home
            .trust_ring(&trackers, &first, ring(2))
            .await
            .unwrap_err();
        let refusal = format!("{refusal:?}");
        assert!(
            refusal.contains("THE RING BEHIND a:1 IS NOT THE ONE KNOWN"),
            "{refusal}"
        );
        assert!(
            refusal.contains(&ring(1).to_string()) && refusal.contains(&ring(2).to_string()),
            "{refusal}"
        );
        assert!(refusal.contains("remove the line of a:1"), "{refusal}");
        // Another tracker of the same list does not get away with it either.
        assert!(
            home.trust_ring(&trackers, &addr("b:1"), ring(2))
                .await
                .is_err()
        );
        assert_eq!(home.rings_of(&trackers).unwrap(), [ring(1)]);
    }

    #[tokio::test]
    async fn a_pinned_ring_overrules_what_was_known() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        home.trust_ring(&list("a:1"), &addr("a:1"), ring(1))
            .await
            .unwrap();
        let pinned = list(&format!("a:1\nring {}", ring(2)));
        assert_eq!(home.rings_of(&pinned).unwrap(), [ring(2)]);
        assert!(
            home.trust_ring(&pinned, &addr("a:1"), ring(1))
                .await
                .is_err()
        );
        home.trust_ring(&pinned, &addr("a:1"), ring(2))
            .await
            .unwrap();
        home.trust_ring(&list("a:1"), &addr("a:1"), ring(2))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_lets_no_ring_be_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        let bytes = b"a:1 \xff\n";
        fs::write(home.known_rings_file(), bytes).unwrap();
        let refusal = home.trust_ring(&list("a:1"), &addr("a:1"), ring(1)).await;
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("cannot read the known rings"), "{refusal}");
        assert!(home.rings_of(&list("a:1")).is_err());
        assert_eq!(fs::read(home.known_rings_file()).unwrap(), bytes);
    }

    #[test]
    fn unreadable_lines_are_skipped() {
        let text = format!("nonsense\na:1 {}\nb:1 xyz\n", ring(3));
        assert_eq!(from_text(&text), BTreeMap::from([(addr("a:1"), ring(3))]));
    }
}
