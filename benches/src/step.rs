//! [`Step`]: a workload of a session, with what it is given differently from the rest of the session.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::workloads::Workload;

/// A workload and the settings that differ from the session's: `readrandom`, `readrandom:threads=2`,
/// `seekrandom:entries=100:threads=2`.
///
/// ```
/// use siltstone_benches::{settings::Settings, step::Step};
/// let step: Step = "seekrandom:entries=100".parse().unwrap();
/// assert_eq!(step.settings(&Settings::default()).seek_entries, 100);
/// assert_eq!(step.to_string(), "seekrandom:entries=100");
/// assert!("seekrandon".parse::<Step>().unwrap_err().contains("seekrandom"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Step {
    /// What is done.
    pub workload: Workload,
    /// In place of [`Settings::threads`].
    pub threads: Option<u32>,
    /// In place of [`Settings::seek_entries`].
    pub entries: Option<usize>,
}

impl From<Workload> for Step {
    fn from(workload: Workload) -> Self {
        Step { workload, threads: None, entries: None }
    }
}

impl Step {
    /// The session's settings with those of this step in place.
    pub fn settings(&self, session: &Settings) -> Settings {
        Settings {
            threads: self.threads.unwrap_or(session.threads),
            seek_entries: self.entries.unwrap_or(session.seek_entries),
            ..session.clone()
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.workload.name())?;
        if let Some(entries) = self.entries {
            write!(f, ":entries={entries}")?;
        }
        if let Some(threads) = self.threads {
            write!(f, ":threads={threads}")?;
        }
        Ok(())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut step = Step::from(workload(parts.next().unwrap_or_default())?);
        for part in parts {
            step.set(part)?;
        }
        Ok(step)
    }
}

impl Step {
    fn set(&mut self, part: &str) -> Result<(), String> {
        let unknown = || format!("{part:?} is neither threads=N (1 to 1024) nor entries=N (1 or more)");
        let (name, value) = part.split_once('=').ok_or_else(unknown)?;
        match name {
            "threads" => {
                self.threads = Some(value.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(unknown)?)
            }
            "entries" => self.entries = Some(value.parse().ok().filter(|&n| n > 0).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn workload(name: &str) -> Result<Workload, String> {
    Workload::from_str(name, false).map_err(|_| {
        let names: Vec<_> = Workload::value_variants().iter().map(|workload| workload.name()).collect();
        format!("there is no workload {name:?}; there are {}", names.join(", "))
    })
}

impl TryFrom<String> for Step {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> String {
        step.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_survive_the_way_to_another_process() {
        for text in ["scan", "readrandom:threads=2", "seekrandom:entries=100:threads=1024"] {
            let step: Step = text.parse().unwrap();
            assert_eq!(step.to_string(), text);
            assert_eq!(serde_json::from_str::<Step>(&serde_json::to_string(&step).unwrap()).unwrap(), step);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "scan:", "scan:threads", "scan:threads=0", "scan:threads=1025", "scan:entries=0", "scan:x=1"] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_named_differs_from_the_session() {
        let session = Settings { threads: 4, seek_entries: 7, ..Settings::default() };
        let step: Step = "readrandom:threads=2".parse().unwrap();
        assert_eq!(step.settings(&session), Settings { threads: 2, ..session.clone() });
        assert_eq!(Step::from(Workload::Scan).settings(&session), session);
    }
}
