//! [`Schedule`]: in which order sessions are run, and how long the rest will take.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use indicatif::HumanDuration;

use super::Session;
use crate::engines::EngineKind;

/// One engine's turn at one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which session, by its place in the plan.
    pub(super) session: usize,
    pub(super) engine: EngineKind,
    /// From 1.
    pub(super) repetition: u32,
}

/// The turns that are left, and how long those took that are done.
#[derive(Debug)]
pub(super) struct Schedule {
    left: VecDeque<Turn>,
    total: usize,
    repeat: u32,
    took: BTreeMap<(usize, EngineKind), Duration>,
    began: Instant,
}

impl Schedule {
    /// In each repetition all sessions; in each session all of its engines, each repetition beginning with the next.
    pub(super) fn new(sessions: &[Session], repeat: u32) -> Self {
        let mut left = VecDeque::new();
        for repetition in 1..=repeat {
            for (session, Session { engines, .. }) in sessions.iter().enumerate() {
                let turn = |engine| Turn { session, engine, repetition };
                let first = (repetition as usize - 1) % engines.len().max(1);
                left.extend(engines[first..].iter().chain(&engines[..first]).map(|&engine| turn(engine)));
            }
        }
        Schedule { total: left.len(), left, repeat, took: BTreeMap::new(), began: Instant::now() }
    }

    /// The next turn, which begins now.
    pub(super) fn next(&mut self) -> Option<Turn> {
        self.began = Instant::now();
        self.left.pop_front()
    }

    /// Notes that the turn is over.
    pub(super) fn done(&mut self, turn: &Turn) {
        self.note(turn, self.began.elapsed());
    }

    fn note(&mut self, turn: &Turn, took: Duration) {
        self.took.insert((turn.session, turn.engine), took);
    }

    /// A line that says which turn begins, and how long it and the rest will take.
    pub(super) fn announcement(&self, turn: &Turn, session: &Session) -> String {
        let at = self.total - self.left.len();
        let parts = [session.suite.as_str(), session.name.as_str(), turn.engine.name()];
        let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let left = self.time_left(turn).map_or(String::new(), |left| format!(", {} left", HumanDuration(left)));
        format!("[{at}/{}] {name}, repetition {} of {}{left}", self.total, turn.repetition, self.repeat)
    }

    /// How long `turn` and the rest will take; `None` before anything is known.
    fn time_left(&self, turn: &Turn) -> Option<Duration> {
        if self.took.is_empty() {
            return None;
        }
        Some(std::iter::once(turn).chain(&self.left).map(|turn| self.expected(turn)).sum())
    }

    /// As long as the same turn took before; else the mean of what is nearest: other engines in this session, this
    /// engine in other sessions, all.
    fn expected(&self, turn: &Turn) -> Duration {
        if let Some(&took) = self.took.get(&(turn.session, turn.engine)) {
            return took;
        }
        let mean = |like: &dyn Fn(&(usize, EngineKind)) -> bool| {
            let known: Vec<_> = self.took.iter().filter(|(key, _)| like(key)).map(|(_, took)| *took).collect();
            let count = u32::try_from(known.len()).unwrap_or(u32::MAX);
            known.iter().sum::<Duration>().checked_div(count)
        };
        let same_session = mean(&|key| key.0 == turn.session);
        let same_engine = || mean(&|key| key.1 == turn.engine);
        same_session.or_else(same_engine).or_else(|| mean(&|_| true)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn sessions() -> Vec<Session> {
        let session = |name: &str, engines: &[EngineKind]| Session {
            suite: "s".to_owned(),
            name: name.to_owned(),
            steps: vec!["scan".parse().unwrap()],
            settings: Settings::default(),
            engines: engines.to_vec(),
        };
        use EngineKind::*;
        vec![session("a", &[Siltstone, Floor, Fjall]), session("b", &[Siltstone])]
    }

    #[test]
    fn engines_take_turns_and_each_repetition_begins_with_another() {
        use EngineKind::*;
        let mut schedule = Schedule::new(&sessions(), 2);
        let turns: Vec<_> =
            std::iter::from_fn(|| schedule.next()).map(|turn| (turn.repetition, turn.session, turn.engine)).collect();
        let first = [(1, 0, Siltstone), (1, 0, Floor), (1, 0, Fjall), (1, 1, Siltstone)];
        let second = [(2, 0, Floor), (2, 0, Fjall), (2, 0, Siltstone), (2, 1, Siltstone)];
        assert_eq!(turns, [first, second].concat());
    }

    #[test]
    fn the_time_left_follows_from_what_is_like_it() {
        let sessions = sessions();
        let mut schedule = Schedule::new(&sessions, 2);
        let turn = schedule.next().unwrap();
        assert_eq!(schedule.time_left(&turn), None);
        assert_eq!(schedule.announcement(&turn, &sessions[0]), "[1/8] s, a, siltstone, repetition 1 of 2");
        schedule.note(&turn, Duration::from_secs(10));
        let turn = schedule.next().unwrap();
        // All like the one that is known.
        assert_eq!(schedule.time_left(&turn), Some(Duration::from_secs(70)));
        schedule.note(&turn, Duration::from_secs(20));
        let turn = schedule.next().unwrap();
        // Of session a: fjall 15 twice, siltstone 10, floor 20; session b: siltstone 10 twice, as it took in session a.
        assert_eq!(schedule.time_left(&turn), Some(Duration::from_secs(80)));
        assert!(schedule.announcement(&turn, &sessions[0]).ends_with(", 80 seconds left"));
    }
}
