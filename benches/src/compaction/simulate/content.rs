//! [`Run`]: what sorted tables hold, as shares of the keys there are, and the merging of two.
//!
//! The model. Keys are the numbers of a key space. They fall into *classes*: the keys of a class are drawn equally
//! often, and lie scattered over the key space, so that every range holds each class in proportion. A run is cut into
//! segments; in a segment, each class is described by three shares of its keys: those whose newest entry in this run
//! is the one put of the load, a later put, or a tombstone.
//!
//! Writes are drawn independently of each other. Whether a key was drawn in one span of time says nothing about whether
//! it was in another, and the entries of a sorted run in any range come from spans of time that no other run's come
//! from. So, of a key's entries in two runs over the same range, the newer hides the older with the probability that it
//! is there at all: shares `n` over shares `o` give `n + (1 - n) o`, the expected union. Of the load, which writes each
//! key once, no two runs hold the same key, and shares add up. Keys written in order have shares of 0 and 1, of which
//! the same is true.

use super::population::Population;

/// Of one class's keys in one segment, the shares that have a newest entry of each kind in the run. Together at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// The put of the load.
    pub load: f32,
    /// A later put.
    pub put: f32,
    /// A tombstone.
    pub tombstone: f32,
}

/// A range of keys in which a run is the same all over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// The first key.
    pub first: u64,
    /// The key after the last, above `first`.
    pub end: u64,
    /// The mean length of the values, in bytes.
    pub value_bytes: f64,
    /// The mean number of the writes that the tombstones are.
    pub birth: f64,
    /// The number of the oldest of them, at the most.
    pub oldest: f64,
}

/// Expected numbers of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Values.
    pub puts: f64,
    /// Tombstones.
    pub tombstones: f64,
}

/// The contents of a sorted run: segments by key, without overlap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    segments: Vec<Segment>,
    /// Of each segment, of each class.
    shares: Vec<Shares>,
}

/// What merges left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropped {
    /// Entries that a newer one hid.
    pub shadowed: f64,
    /// Tombstones, whether hidden or without use.
    pub tombstones: f64,
    /// Their ages together, in writes since theirs.
    pub age_sum: f64,
    /// The age of the oldest.
    pub age_max: f64,
}

/// Neighbours whose entries a key differ by less than this share are one segment.
const ALIKE: f64 = 0.02;

impl Shares {
    fn there(self) -> f32 {
        self.load + self.put + self.tombstone
    }

    /// These, of newer entries, over `older` ones.
    pub fn over(self, older: Shares) -> Shares {
        // Where the load hides something, it is of a class that the older run cannot hold: a key is loaded once and
        // drawn only after. So only what was drawn hides.
        let open = (1.0 - self.put - self.tombstone).max(0.0);
        Shares {
            load: self.load + open * older.load,
            put: self.put + open * older.put,
            tombstone: self.tombstone + open * older.tombstone,
        }
    }
}

impl Segment {
    /// How many keys there are from its first to its last, written or not.
    pub fn keys(&self) -> f64 {
        (self.end - self.first) as f64
    }
}

impl Counts {
    fn of(population: &Population, shares: &[Shares]) -> Counts {
        let mut counts = Counts::default();
        for (class, shares) in population.classes().iter().zip(shares) {
            counts.puts += class.keys * f64::from(shares.load + shares.put);
            counts.tombstones += class.keys * f64::from(shares.tombstone);
        }
        counts
    }

    /// All of them.
    pub fn entries(&self) -> f64 {
        self.puts + self.tombstones
    }

    fn times(self, keys: f64) -> Counts {
        Counts { puts: self.puts * keys, tombstones: self.tombstones * keys }
    }
}

impl Run {
    /// One segment, in which `class` of the population has the shares that `shares` says.
    pub fn of_segment(segment: Segment, shares: Vec<Shares>) -> Run {
        Run { segments: vec![segment], shares }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Its segments by key, each with the expected number of entries *a key*.
    pub fn densities<'r>(&'r self, population: &'r Population) -> impl Iterator<Item = (&'r Segment, Counts)> {
        self.parts().map(|(segment, shares)| (segment, Counts::of(population, shares)))
    }

    /// How many entries it holds.
    pub fn counts(&self, population: &Population) -> Counts {
        self.densities(population).fold(Counts::default(), |sum, (segment, density)| {
            let counts = density.times(segment.keys());
            Counts { puts: sum.puts + counts.puts, tombstones: sum.tombstones + counts.tombstones }
        })
    }

    /// The variance of the number of tombstones: of its entries in a segment, each is one with the same probability.
    pub fn tombstone_variance(&self, population: &Population) -> f64 {
        let variance = |(segment, density): (&Segment, Counts)| {
            let tombstones = density.tombstones / density.entries().max(f64::MIN_POSITIVE);
            segment.keys() * density.entries() * tombstones * (1.0 - tombstones)
        };
        self.densities(population).map(variance).sum()
    }

    /// Whether there are any tombstones in it.
    pub fn holds_tombstones(&self) -> bool {
        self.shares.iter().any(|shares| shares.tombstone > 0.0)
    }

    /// Its segments by key.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The bytes of its keys and values, keys having `key_bytes`.
    pub fn user_bytes(&self, population: &Population, key_bytes: f64) -> f64 {
        let bytes = |(segment, density): (&Segment, Counts)| {
            segment.keys() * (density.puts * (segment.value_bytes + key_bytes) + density.tombstones * key_bytes)
        };
        self.densities(population).map(bytes).sum()
    }

    fn parts(&self) -> impl Iterator<Item = (&Segment, &[Shares])> {
        let classes = self.shares.len() / self.segments.len().max(1);
        self.segments.iter().zip(self.shares.chunks_exact(classes.max(1)))
    }

    /// Puts the segments of `next`, all of which come after this run's, at the end.
    pub fn append(&mut self, next: &Run) {
        self.segments.extend_from_slice(&next.segments);
        self.shares.extend_from_slice(&next.shares);
    }

    /// What lies from `first` up to `end`.
    pub fn slice(&self, first: u64, end: u64) -> Run {
        let mut slice = Run::default();
        for (segment, shares) in self.parts().filter(|(segment, _)| segment.first < end && segment.end > first) {
            slice.segments.push(Segment { first: segment.first.max(first), end: segment.end.min(end), ..*segment });
            slice.shares.extend_from_slice(shares);
        }
        slice
    }

    /// This run over an older one, at write number `now`.
    pub fn over(&self, older: &Run, population: &Population, now: u64, dropped: &mut Dropped) -> Run {
        let mut merged = Run::default();
        let (mut newer_parts, mut older_parts) = (self.parts().peekable(), older.parts().peekable());
        let mut from = 0;
        loop {
            let ends =
                |part: Option<&(&Segment, &[Shares])>| part.map_or((u64::MAX, u64::MAX), |(s, _)| (s.first, s.end));
            let (newer_at, older_at) = (ends(newer_parts.peek()), ends(older_parts.peek()));
            let begin = newer_at.0.min(older_at.0).max(from);
            if begin == u64::MAX {
                return merged;
            }
            // Up to where the next segment of either begins or ends.
            let edge = |(first, end): (u64, u64)| if first > begin { first } else { end };
            let end = edge(newer_at).min(edge(older_at));
            let inside = |(first, _): (u64, u64)| first <= begin;
            let newer = newer_parts.peek().filter(|_| inside(newer_at));
            let older = older_parts.peek().filter(|_| inside(older_at));
            match (newer, older) {
                (Some((newer, over)), Some((older, under))) => {
                    let (newer, older) =
                        (Segment { first: begin, end, ..**newer }, Segment { first: begin, end, ..**older });
                    merged.push_union((newer, over), (older, under), population, now, dropped);
                }
                (Some((segment, shares)), None) | (None, Some((segment, shares))) => {
                    merged.push(Segment { first: begin, end, ..**segment }, shares, population);
                }
                (None, None) => {}
            }
            from = end;
            newer_parts.next_if(|_| newer_at.1 == end);
            older_parts.next_if(|_| older_at.1 == end);
        }
    }

    fn push_union(
        &mut self,
        (newer, over): (Segment, &[Shares]),
        (older, under): (Segment, &[Shares]),
        population: &Population,
        now: u64,
        dropped: &mut Dropped,
    ) {
        let shares: Vec<Shares> = over.iter().zip(under).map(|(over, under)| over.over(*under)).collect();
        let keys = newer.keys();
        let [above, below, both] = [over, under, &shares].map(|shares| Counts::of(population, shares).times(keys));
        let kept = |all: f64, above: f64| (all - above).max(0.0);
        let (kept_puts, kept_tombstones) = (kept(both.puts, above.puts), kept(both.tombstones, above.tombstones));
        dropped.shadowed += kept(above.entries() + below.entries(), both.entries());
        dropped.lose_tombstones((below.tombstones - kept_tombstones).max(0.0), &older, now);
        let segment = Segment {
            value_bytes: mean((newer.value_bytes, above.puts), (older.value_bytes, kept_puts)),
            birth: mean((newer.birth, above.tombstones), (older.birth, kept_tombstones)),
            oldest: oldest((&newer, above.tombstones), (&older, kept_tombstones)),
            ..newer
        };
        self.push(segment, &shares, population);
    }

    /// Puts a segment at the end; it becomes part of the last one if they are alike.
    pub fn push(&mut self, segment: Segment, shares: &[Shares], population: &Population) {
        let classes = shares.len();
        let Some(last) = self.segments.last_mut().filter(|last| last.end == segment.first) else {
            self.segments.push(segment);
            self.shares.extend_from_slice(shares);
            return;
        };
        let from = self.shares.len() - classes;
        let ours = Counts::of(population, &self.shares[from..]);
        let theirs = Counts::of(population, shares);
        if !alike(ours.puts, theirs.puts) || !alike(ours.tombstones, theirs.tombstones) {
            self.segments.push(segment);
            self.shares.extend_from_slice(shares);
            return;
        }
        let joined = joined((last, ours), (&segment, theirs));
        let weight = (segment.keys() / joined.keys()) as f32;
        *last = joined;
        for (ours, theirs) in self.shares[from..].iter_mut().zip(shares) {
            let mix = |a: f32, b: f32| a + (b - a) * weight;
            *ours = Shares {
                load: mix(ours.load, theirs.load),
                put: mix(ours.put, theirs.put),
                tombstone: mix(ours.tombstone, theirs.tombstone),
            };
        }
    }

    /// Takes out the tombstones between `first` and `end`: nothing they could hide is left.
    pub fn drop_tombstones(&mut self, within: (u64, u64), population: &Population, now: u64, dropped: &mut Dropped) {
        let touched = |segment: &Segment| segment.first < within.1 && segment.end > within.0;
        if !self.parts().any(|(segment, shares)| touched(segment) && shares.iter().any(|s| s.tombstone > 0.0)) {
            return;
        }
        let old = std::mem::take(self);
        for (segment, shares) in old.parts() {
            let cuts = [
                segment.first,
                within.0.clamp(segment.first, segment.end),
                within.1.clamp(segment.first, segment.end),
                segment.end,
            ];
            for (part, pair) in cuts.windows(2).enumerate().filter(|(_, pair)| pair[0] < pair[1]) {
                let part_of = Segment { first: pair[0], end: pair[1], ..*segment };
                if part != 1 {
                    self.push(part_of, shares, population);
                    continue;
                }
                let lost = Counts::of(population, shares).tombstones * part_of.keys();
                dropped.lose_tombstones(lost, &part_of, now);
                let left: Vec<Shares> = shares.iter().map(|shares| Shares { tombstone: 0.0, ..*shares }).collect();
                if left.iter().any(|shares| shares.there() > 0.0) {
                    self.push(part_of, &left, population);
                }
            }
        }
    }
}

impl Dropped {
    fn lose_tombstones(&mut self, count: f64, segment: &Segment, now: u64) {
        // Less than half a tombstone is a rounding of shares.
        if count < 0.5 {
            return;
        }
        self.tombstones += count;
        self.age_sum += count * (now as f64 - segment.birth).max(0.0);
        self.age_max = self.age_max.max(now as f64 - segment.oldest);
    }
}

fn alike(a: f64, b: f64) -> bool {
    (a - b).abs() <= ALIKE * a.max(b)
}

/// The mean of two values, by weight.
fn mean((a, weight_a): (f64, f64), (b, weight_b): (f64, f64)) -> f64 {
    let weight = weight_a + weight_b;
    if weight > 0.0 { (a * weight_a + b * weight_b) / weight } else { a }
}

fn oldest((a, tombstones_a): (&Segment, f64), (b, tombstones_b): (&Segment, f64)) -> f64 {
    match (tombstones_a > 0.0, tombstones_b > 0.0) {
        (true, true) => a.oldest.min(b.oldest),
        (false, true) => b.oldest,
        _ => a.oldest,
    }
}

/// Two neighbours as one.
fn joined((a, density_a): (&Segment, Counts), (b, density_b): (&Segment, Counts)) -> Segment {
    let (in_a, in_b) = (density_a.times(a.keys()), density_b.times(b.keys()));
    Segment {
        first: a.first,
        end: b.end,
        value_bytes: mean((a.value_bytes, in_a.puts), (b.value_bytes, in_b.puts)),
        birth: mean((a.birth, in_a.tombstones), (b.birth, in_b.tombstones)),
        oldest: oldest((a, in_a.tombstones), (b, in_b.tombstones)),
    }
}

#[cfg(test)]
mod tests;
