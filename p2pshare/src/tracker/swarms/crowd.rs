//! Who is online with one file, seen as a whole: how often each chunk is there, and whom to name to somebody who
//! looks for it. The lot is an argument.
//!
//! **Invariant.** Whom a peer is told of is drawn for it alone, so that a swarm of any size is a random graph; of those
//! with a part, whoever has what few have is drawn more often, and no one is left out for good.

use rand::{Rng, RngExt as _, seq::SliceRandom as _};

use crate::{
    content::Bitfield,
    identity::PeerId,
    limits::{HOLDERS_SAMPLE_MAX, HOLDERS_WHOLE_SHARE},
    wire::tracker::{Availability, Holder, Holding},
};

/// The holders of one file.
#[derive(Debug)]
pub(crate) struct Crowd {
    whole: Vec<Holder>,
    /// Each with how much of what it has is rare.
    parts: Vec<(Holder, f64)>,
    availability: Availability,
}

impl Crowd {
    /// Those who announced something of a file of so many chunks, or that they have begun to fetch it: they are named, so
    /// that those who begin at the same time meet, and do not count.
    pub(crate) fn new(holders: impl IntoIterator<Item = Holder>, chunks: u32) -> Self {
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        let (mut counts, mut untold, mut beginners) = (Vec::new(), 0_u32, 0);
        for holder in holders {
            match &holder.holding {
                Holding::Nothing => {}
                Holding::Complete => whole.push(holder),
                Holding::Partial(bits) => {
                    match Bitfield::from_bytes(chunks, bits) {
                        Ok(has) if has.is_empty() => beginners += 1,
                        Ok(has) => {
                            counts.resize(chunks as usize, 0_u8);
                            for chunk in has.iter_set() {
                                let count = &mut counts[chunk as usize];
                                *count = count.saturating_add(1);
                            }
                        }
                        Err(_) => untold = untold.saturating_add(1),
                    }
                    parts.push((holder, 0.0));
                }
            }
        }
        let count = |holders: usize| u32::try_from(holders).unwrap_or(u32::MAX);
        let availability = Availability {
            chunks,
            holders: count(whole.len() + parts.len() - beginners),
            whole: count(whole.len()),
            untold,
            parts: counts,
        };
        if whole.len() + parts.len() > HOLDERS_SAMPLE_MAX {
            weigh(&mut parts, &availability);
        }
        Self {
            whole,
            parts,
            availability,
        }
    }

    pub(crate) const fn availability(&self) -> &Availability {
        &self.availability
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let holder = |holder: &Holder| {
            let bits = match &holder.holding {
                Holding::Partial(bits) => bits.len(),
                Holding::Nothing | Holding::Complete => 0,
            };
            size_of::<Holder>() + 32 * holder.addrs.len() + bits
        };
        let parts = self.parts.iter().map(|(part, _)| holder(part));
        let all = self.whole.iter().map(holder).chain(parts);
        self.availability.parts.len() + all.sum::<usize>()
    }

    /// Some of them, `asking` left out: all if they are few, else a part of those with the whole, by lot, and for
    /// the rest of the places those with a part, half by lot and half by how rare it is what they have.
    pub(crate) fn sample(&self, asking: PeerId, rng: &mut impl Rng) -> Vec<Holder> {
        let is_other = |holder: &&Holder| holder.peer != asking;
        let mut whole: Vec<&Holder> = self.whole.iter().filter(is_other).collect();
        let parts = self.parts.iter().filter(|(part, _)| part.peer != asking);
        let parts: Vec<(&Holder, f64)> = parts.map(|(part, weight)| (part, *weight)).collect();
        let rest = HOLDERS_SAMPLE_MAX.saturating_sub(parts.len());
        whole.shuffle(rng);
        whole.truncate(rest.max(HOLDERS_SAMPLE_MAX / HOLDERS_WHOLE_SHARE));
        let mean = parts.iter().map(|(_, weight)| weight).sum::<f64>() / parts.len().max(1) as f64;
        let mut drawn: Vec<(f64, &Holder)> = parts
            .into_iter()
            .map(|(part, weight)| match weight {
                // It has just begun, if others have not.
                0.0 => (waits(mean / BEGINNER_SHARE, rng), part),
                weight => (waits(mean + weight, rng), part),
            })
            .collect();
        drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let places = HOLDERS_SAMPLE_MAX - whole.len();
        let mut sample = whole;
        sample.extend(drawn.into_iter().take(places).map(|(_, part)| part));
        sample.shuffle(rng);
        sample.into_iter().cloned().collect()
    }
}

/// How long one with that weight waits for its lot: those who wait least are a sample in which each counts by its
/// weight (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
fn waits(weight: f64, rng: &mut impl Rng) -> f64 {
    // Where nothing has a weight, all have the same.
    let weight = if weight > 0.0 { weight } else { 1.0 };
    -(1.0 - rng.random::<f64>()).ln() / weight
}

/// Gives each the sum, over its chunks, of one through the square of how many have that chunk: whoever has one that
/// nobody else has counts more than whoever has a hundred that ten have.
fn weigh(parts: &mut [(Holder, f64)], availability: &Availability) {
    let worth: Vec<f64> = availability
        .counts()
        .map(|count| 1.0 / f64::from(count.max(1)).powi(2))
        .collect();
    for (part, weight) in parts {
        if let Holding::Partial(bits) = &part.holding
            && let Ok(has) = Bitfield::from_bytes(availability.chunks, bits)
        {
            *weight = has.iter_set().map(|chunk| worth[chunk as usize]).sum();
        }
    }
}

/// How many times as seldom one who has just begun is named as one with a part.
const BEGINNER_SHARE: f64 = 8.0;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn peer(i: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&i.to_be_bytes());
        PeerId::from_bytes(id)
    }

    fn holder(i: usize, holding: Holding) -> Holder {
        Holder {
            peer: peer(i),
            addrs: vec![([192, 0, 2, 1], 9).into()],
            holding,
        }
    }

    fn part(chunks: u32, has: impl IntoIterator<Item = u32>) -> Holding {
        let mut bits = Bitfield::new(chunks);
        for chunk in has {
            bits.set(chunk);
        }
        Holding::Partial(bits.to_bytes())
    }

    #[test]
    fn each_chunk_is_counted_with_those_who_say_that_they_have_it() {
        let holders = [
            holder(1, Holding::Complete),
            holder(2, part(10, [0, 3])),
            holder(3, part(10, [3, 9])),
            holder(4, part(10, [])),
            // Of the largest files it is not said; nor does this make sense.
            holder(5, Holding::Partial(Vec::new())),
            holder(6, part(99, [3])),
            holder(7, Holding::Nothing),
        ];
        let crowd = Crowd::new(holders, 10);
        let of = crowd.availability();
        assert_eq!((of.holders, of.whole, of.untold), (5, 1, 2));
        let counts: Vec<u32> = of.counts().collect();
        assert_eq!(counts, [2, 1, 1, 3, 1, 1, 1, 1, 1, 2]);
        // A crowd of those with the whole alone has nothing to say of each chunk.
        let whole = Crowd::new([holder(1, Holding::Complete)], 10);
        assert!(whole.availability().parts.is_empty());
        assert!(Crowd::new([], 10).availability().counts().all(|n| n == 0));
        // Those who have just begun are named to each other, and have nothing.
        let beginners = Crowd::new((0..3).map(|i| holder(i, part(10, []))), 10);
        assert_eq!(beginners.availability().holders, 0);
        assert!(beginners.availability().parts.is_empty());
        let named = beginners.sample(peer(1), &mut StdRng::seed_from_u64(1));
        assert_eq!(named.len(), 2);
        let many = (0..300).map(|i| holder(i, part(3, [1])));
        assert_eq!(Crowd::new(many, 3).availability().parts, [0, 255, 0]);
    }

    #[test]
    fn whoever_asks_is_told_of_all_others_when_they_are_few() {
        let holders = (0..=HOLDERS_SAMPLE_MAX).map(|i| match i % 2 {
            0 => holder(i, Holding::Complete),
            _ => holder(i, part(10, [1])),
        });
        let crowd = Crowd::new(holders, 10);
        let mut rng = StdRng::seed_from_u64(1);
        for asking in [0, 1] {
            let told = crowd.sample(peer(asking), &mut rng);
            let told: BTreeSet<PeerId> = told.iter().map(|holder| holder.peer).collect();
            let others = (0..=HOLDERS_SAMPLE_MAX).filter(|i| *i != asking);
            assert_eq!(told, others.map(peer).collect());
        }
    }

    /// How often each was named to many who asked.
    fn named(crowd: &Crowd, asked: usize) -> BTreeMap<PeerId, usize> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut named = BTreeMap::new();
        for i in 0..asked {
            let asking = peer(i);
            let sample = crowd.sample(asking, &mut rng);
            assert_eq!(sample.len(), HOLDERS_SAMPLE_MAX);
            let once: BTreeSet<PeerId> = sample.iter().map(|holder| holder.peer).collect();
            assert_eq!(once.len(), HOLDERS_SAMPLE_MAX, "somebody is named twice");
            assert!(!once.contains(&asking), "whoever asks is named");
            for peer in once {
                *named.entry(peer).or_default() += 1;
            }
        }
        named
    }

    #[test]
    fn of_many_a_mix_is_named_and_what_is_rare_most_often() {
        // 100 with the whole, 1,000 with half of what is common, and one with the one chunk that is rare.
        let whole = (0..100).map(|i| holder(i, Holding::Complete));
        let parts =
            (100..1100).map(|i| holder(i, part(64, (0..63).filter(|c| c % 2 == i as u32 % 2))));
        let rare = holder(1100, part(64, [63]));
        let crowd = Crowd::new(parts.chain(whole).chain([rare.clone()]), 64);
        let named_of = named(&crowd, 400);
        let of_whole = named_of.iter().filter(|(id, _)| **id < peer(100));
        let of_whole: usize = of_whole.map(|(_, times)| times).sum();
        assert_eq!(of_whole, 400 * (HOLDERS_SAMPLE_MAX / HOLDERS_WHOLE_SHARE));
        // With the hundred the rare chunk is not so rare.
        let of_rare = |named: &BTreeMap<PeerId, usize>| named.get(&rare.peer).copied().unwrap_or(0);
        assert!(of_rare(&named_of) < 100, "{}", of_rare(&named_of));
        // Nobody is left out for good.
        assert!(named_of.len() > 1000, "{}", named_of.len());

        let parts =
            (100..1100).map(|i| holder(i, part(64, (0..63).filter(|c| c % 2 == i as u32 % 2))));
        let crowd = Crowd::new(parts.chain([rare.clone()]), 64);
        let named_of = named(&crowd, 400);
        assert!(of_rare(&named_of) > 380, "{}", of_rare(&named_of));
        assert!(named_of.len() > 1000, "{}", named_of.len());
    }

    #[test]
    fn those_who_have_something_are_named_before_those_who_have_just_begun() {
        let parts = (0..30).map(|i| holder(i, part(64, [i as u32])));
        let beginners = (30..1000).map(|i| holder(i, part(64, [])));
        let crowd = Crowd::new(parts.chain(beginners), 64);
        let mut rng = StdRng::seed_from_u64(5);
        let of_parts = (0..100).map(|_| {
            let sample = crowd.sample(peer(9999), &mut rng);
            assert_eq!(sample.len(), HOLDERS_SAMPLE_MAX);
            let named = sample.iter().filter(|holder| holder.peer < peer(30));
            named.count()
        });
        let of_parts: usize = of_parts.sum();
        assert!(of_parts > 100 * 28, "{of_parts}");
    }

    #[test]
    fn places_that_one_kind_does_not_need_the_other_has() {
        let whole = |n: usize| (0..n).map(|i| holder(i, Holding::Complete));
        let parts = |n: usize| (1000..1000 + n).map(|i| holder(i, part(8, [1])));
        let mut rng = StdRng::seed_from_u64(3);
        for (w, p) in [(200, 0), (0, 200), (200, 3), (3, 200), (200, 200)] {
            let crowd = Crowd::new(whole(w).chain(parts(p)), 8);
            let sample = crowd.sample(peer(9999), &mut rng);
            assert_eq!(sample.len(), HOLDERS_SAMPLE_MAX, "{w} and {p}");
        }
    }
}
