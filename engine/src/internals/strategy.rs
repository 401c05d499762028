//! [`Strategy`]: compaction strategies and their settings, by name, for whoever compares them.

use std::fmt;
use std::str::FromStr;

use super::compaction::PickOrder;
use crate::error::Error;
use crate::options::KeyspaceOptions;

/// A way to compact, as keyspace options.
///
/// Its name is the family, followed by what differs from its defaults: `leveled`, `leveled+ratio=4`,
/// `leveled+dynamic=no+picker=oldest-first`. What a new family or setting adds here, benchmarks know.
///
/// ```
/// use siltstone::internals::strategy::Strategy;
/// let strategy: Strategy = "leveled+ratio=4+picker=round-robin".parse()?;
/// assert_eq!((strategy.level_ratio(), strategy.to_string().as_str()), (4, "leveled+ratio=4+picker=round-robin"));
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    name: String,
    options: KeyspaceOptions,
}

/// A family, with the settings that [`Strategy::all`] tries one at a time.
struct Family {
    name: &'static str,
    variants: &'static [&'static str],
}

const FAMILIES: &[Family] = &[Family {
    name: "leveled",
    variants: &[
        "ratio=4",
        "ratio=6",
        "ratio=8",
        "ratio=16",
        "dynamic=no",
        "trigger=2",
        "trigger=8",
        "picker=oldest-first",
        "picker=round-robin",
        "picker=largest-first",
    ],
}];

const PICKERS: [(&str, PickOrder); 4] = [
    ("min-overlap", PickOrder::MinOverlap),
    ("oldest-first", PickOrder::OldestFirst),
    ("round-robin", PickOrder::RoundRobin),
    ("largest-first", PickOrder::LargestFirst),
];

impl Strategy {
    /// Each family with its defaults, and with each of the settings that are worth a comparison.
    pub fn all() -> Vec<Strategy> {
        let names = FAMILIES.iter().flat_map(|family| {
            let varied = family.variants.iter().map(move |variant| format!("{}+{variant}", family.name));
            std::iter::once(family.name.to_owned()).chain(varied)
        });
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// Its options, on top of the defaults.
    pub fn options(&self) -> KeyspaceOptions {
        self.options.clone()
    }

    /// How many times larger each level is than the one above.
    pub fn level_ratio(&self) -> u64 {
        self.options.level_ratio.into()
    }

    /// How many level-0 tables start a compaction.
    pub fn level0_trigger(&self) -> u64 {
        self.options.level0_trigger.into()
    }

    fn with(mut self, setting: &str) -> Result<Self, Error> {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = || value.parse::<u32>().map_err(|_| refused(setting));
        let options = self.options;
        self.options = match name {
            "ratio" => options.level_ratio(number()?),
            "trigger" => options.level0_trigger(number()?),
            "dynamic" if value == "yes" || value == "no" => options.dynamic_levels(value == "yes"),
            "table-kib" => options.target_table_bytes(u64::from(number()?) << 10),
            "base-kib" => options.base_level_bytes(u64::from(number()?) << 10),
            "picker" => {
                let known = PICKERS.iter().find(|(name, _)| *name == value);
                let (_, order) = known.ok_or_else(|| refused(setting))?;
                KeyspaceOptions { pick_order: *order, ..options }
            }
            _ => return Err(refused(setting)),
        };
        self.options.check()?;
        Ok(self)
    }
}

fn refused(what: &str) -> Error {
    let families: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    let pickers = PICKERS.map(|(name, _)| name);
    Error::InvalidArgument(format!(
        "{what:?} is no compaction strategy or setting; there is {}, with +ratio=2..100, +trigger=1..64, \
         +dynamic=yes|no, +table-kib=N, +base-kib=N, +picker={}",
        families.join(", "),
        pickers.join("|")
    ))
}

impl FromStr for Strategy {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` that lists what there is.
    fn from_str(name: &str) -> Result<Self, Error> {
        let mut parts = name.split('+');
        let family = parts.next().unwrap_or_default();
        if !FAMILIES.iter().any(|known| known.name == family) {
            return Err(refused(family));
        }
        let plain = Strategy { name: name.to_owned(), options: KeyspaceOptions::new() };
        parts.try_fold(plain, Strategy::with)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_list_can_be_named() {
        let all = Strategy::all();
        assert_eq!(all.len(), FAMILIES.iter().map(|family| 1 + family.variants.len()).sum::<usize>());
        assert_eq!(all[0].options, KeyspaceOptions::new());
        for (at, strategy) in all.iter().enumerate() {
            assert_eq!(strategy.to_string().parse::<Strategy>().unwrap(), *strategy);
            assert!(all[..at].iter().all(|other| other.options != strategy.options), "{strategy} is there twice");
        }
    }

    #[test]
    fn what_is_unknown_or_out_of_bounds_lists_what_there_is() {
        let refusal = |name: &str| name.parse::<Strategy>().unwrap_err().to_string();
        for name in ["", "universal", "leveled+rati=4", "leveled+ratio", "leveled+ratio=x", "leveled+dynamic=2"] {
            let text = refusal(name);
            assert!(text.contains("leveled") && text.contains("round-robin"), "{name:?}: {text}");
        }
        assert!(refusal("leveled+picker=newest").contains("oldest-first"));
        assert!(refusal("leveled+ratio=1").contains("at least 2"));
    }
}
