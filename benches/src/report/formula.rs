//! [`Formula`]: a goal, as a condition on how our figure stands to those of others.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use crate::engines::EngineKind;

/// Conditions that all have to hold, written as `>= 3x rocksdb and >= 1.7x best`.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula(Vec<Condition>);

/// One comparison of our figure with a factor times that of others, or with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Condition {
    comparison: Comparison,
    factor: f64,
    operand: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// One.
    Number,
    /// The figure of an engine.
    Engine(EngineKind),
    /// The best figure of all peers: `best`.
    Best,
    /// The best figure of the peers that are LSM trees: `lsms`.
    Lsms,
}

/// What a formula comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every condition holds.
    Reached,
    /// Some condition does not.
    Missed,
    /// What is known does not decide it; which figures are missing.
    Unknown(Vec<String>),
    /// None of its conditions is meant for what was measured.
    NotMeant,
}

/// What an operand stands for in some results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Its figure.
    Known(f64),
    /// It should be there, and is not.
    Missing,
    /// It is not meant to be compared with here.
    NotMeant,
}

impl Formula {
    /// Whether `ours` reaches the goal, where `value` tells what the others have. Conditions on operands that are not
    /// meant are left out.
    pub fn judge(&self, ours: f64, value: impl Fn(Operand) -> Value) -> Verdict {
        let mut missing = Vec::new();
        let (mut judged, mut missed) = (0, false);
        for condition in &self.0 {
            match value(condition.operand) {
                Value::Known(other) => {
                    judged += 1;
                    missed |= !condition.holds(ours, other);
                }
                Value::Missing => missing.push(condition.operand.to_string()),
                Value::NotMeant => {}
            }
        }
        match (missed, missing.is_empty(), judged) {
            (true, ..) => Verdict::Missed,
            (false, false, _) => Verdict::Unknown(missing),
            (false, true, 0) => Verdict::NotMeant,
            (false, true, _) => Verdict::Reached,
        }
    }

    /// What its figures are compared with.
    pub fn operands(&self) -> impl Iterator<Item = Operand> + '_ {
        self.0.iter().map(|condition| condition.operand)
    }
}

impl Condition {
    fn holds(&self, ours: f64, other: f64) -> bool {
        let bound = self.factor * other;
        match self.comparison {
            Comparison::AtLeast => ours >= bound,
            Comparison::AtMost => ours <= bound,
        }
    }
}

impl FromStr for Formula {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(" and ").map(str::parse).collect::<Result<_, _>>().map(Formula)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{text:?}: {what}; a condition is like \">= 1.3x lmdb\", \"<= best\" or \"<= 10\"");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (comparison, words) = match words.split_first() {
            Some((&">=", words)) => (Comparison::AtLeast, words),
            Some((&"<=", words)) => (Comparison::AtMost, words),
            _ => return Err(wrong("it begins with neither >= nor <=")),
        };
        let factor = |word: &str| {
            let number: Option<f64> = word.parse().ok();
            number.filter(|number| number.is_finite() && *number > 0.0).ok_or_else(|| wrong("no positive number"))
        };
        match *words {
            [word] if word.starts_with(|first: char| first.is_ascii_digit()) => {
                Ok(Condition { comparison, factor: factor(word)?, operand: Operand::Number })
            }
            [operand] => Ok(Condition { comparison, factor: 1.0, operand: operand.parse()? }),
            [times, operand] => {
                let times = times.strip_suffix('x').ok_or_else(|| wrong("a factor ends in x"))?;
                Ok(Condition { comparison, factor: factor(times)?, operand: operand.parse()? })
            }
            _ => Err(wrong("nothing to compare with")),
        }
    }
}

impl FromStr for Operand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "best" => Ok(Operand::Best),
            "lsms" => Ok(Operand::Lsms),
            name => EngineKind::from_str(name, false).map(Operand::Engine).map_err(|_| {
                let names: Vec<_> = EngineKind::value_variants().iter().map(|engine| engine.name()).collect();
                format!("there is no engine {name:?}; there are best, lsms, {}", names.join(", "))
            }),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operand::Number => "1",
            Operand::Engine(engine) => engine.name(),
            Operand::Best => "best",
            Operand::Lsms => "lsms",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
        };
        match self.operand {
            Operand::Number => write!(f, "{sign} {}", self.factor),
            operand if self.factor == 1.0 => write!(f, "{sign} {operand}"),
            operand => write!(f, "{sign} {}x {operand}", self.factor),
        }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.0.iter().enumerate() {
            write!(f, "{}{condition}", if at == 0 { "" } else { " and " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    fn formula(text: &str) -> Formula {
        let formula: Formula = text.parse().unwrap();
        assert_eq!(formula.to_string(), text);
        formula
    }

    /// RocksDB has 100, LMDB is not meant, of all peers the best has 200, nothing else is known.
    fn value(operand: Operand) -> Value {
        match operand {
            Operand::Number => Value::Known(1.0),
            Operand::Engine(EngineKind::RocksDb) => Value::Known(100.0),
            Operand::Engine(EngineKind::Lmdb) => Value::NotMeant,
            Operand::Best => Value::Known(200.0),
            _ => Value::Missing,
        }
    }

    #[test]
    fn each_comparison_includes_its_bound() {
        let judge = |text: &str, ours| formula(text).judge(ours, value);
        assert_eq!(judge(">= 3x rocksdb", 300.0), Reached);
        assert_eq!(judge(">= 3x rocksdb", 299.9), Missed);
        assert_eq!(judge("<= 0.2x rocksdb", 20.0), Reached);
        assert_eq!(judge("<= 0.2x rocksdb", 20.1), Missed);
        assert_eq!(judge("<= rocksdb", 100.0), Reached);
        assert_eq!(judge("<= 1.1", 1.1), Reached);
        assert_eq!(judge("<= 1.1", 1.2), Missed);
        assert_eq!(judge(">= 10", 9.0), Missed);
    }

    #[test]
    fn all_conditions_have_to_hold() {
        let both = formula(">= 3x rocksdb and >= 1.7x best");
        assert_eq!(both.judge(340.0, value), Reached);
        assert_eq!(both.judge(339.0, value), Missed);
        assert_eq!(both.operands().collect::<Vec<_>>(), [Operand::Engine(EngineKind::RocksDb), Operand::Best]);
    }

    #[test]
    fn what_is_missing_leaves_a_goal_open_unless_it_is_missed_anyway() {
        let both = formula(">= 3x rocksdb and >= fjall");
        assert_eq!(both.judge(400.0, value), Unknown(vec!["fjall".to_owned()]));
        assert_eq!(both.judge(200.0, value), Missed);
        assert_eq!(formula(">= 3x lsms").judge(1e9, value), Unknown(vec!["lsms".to_owned()]));
    }

    #[test]
    fn conditions_on_engines_that_are_not_meant_are_left_out() {
        assert_eq!(formula(">= 1.3x lmdb and >= 3x rocksdb").judge(300.0, value), Reached);
        assert_eq!(formula(">= 1.3x lmdb").judge(300.0, value), NotMeant);
    }

    #[test]
    fn what_is_no_formula_is_refused_and_names_what_there_is() {
        for text in ["", ">", "> 3x best", ">= 3 best", ">= x best", ">= -1x best", ">= 0x best", ">= 1x 2x best"] {
            assert!(text.parse::<Formula>().is_err(), "{text}");
        }
        let error = ">= 2x leveldb".parse::<Formula>().unwrap_err();
        assert!(error.contains("leveldb") && error.contains("rocksdb") && error.contains("lsms"), "{error}");
    }
}
