//! The commit group: callers that find the lock taken leave their request to whoever holds it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::explore::explore_at_random;
use super::{Journal, request};
use crate::error::Result;
use crate::fs::{FileSystem, Keep, SimFileSystem};
use crate::key::SeqNo;
use crate::sync::{Mutex, thread};
use crate::wal::replay::{ReplayInput, replay};
use crate::wal::{Floor, Wal, WalOptions, WalWriter, create};
use crate::write::queue::{Commit, CommitQueue, Request};

const THREADS: u8 = 3;
const EACH: u8 = 3;

/// No wake-up is lost (that would be a deadlock), no request is committed twice or never, and a thread's own numbers
/// grow, beside a thread that takes the lock for something else.
#[test]
fn every_request_is_committed_once() {
    explore_at_random(4000, || {
        let queue = Arc::new(CommitQueue::new(Journal::default()));
        let writers: Vec<_> = (0..THREADS).map(|number| spawn_writer(&queue, number)).collect();
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.with_state(|journal| journal.committed.len()))
        };
        assert!(other.join().unwrap() <= usize::from(THREADS * EACH));
        let mut given: Vec<SeqNo> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        given.sort_unstable();
        assert_eq!(given, (1..=SeqNo::from(THREADS * EACH)).collect::<Vec<_>>());
        let committed = queue.with_state(|journal| journal.committed.clone());
        assert_eq!(committed.iter().collect::<HashSet<_>>().len(), committed.len(), "twice: {committed:?}");
    });
}

fn spawn_writer(queue: &Arc<CommitQueue<Journal>>, number: u8) -> thread::JoinHandle<Vec<SeqNo>> {
    let queue = queue.clone();
    thread::spawn(move || {
        let mut given = Vec::new();
        for n in 0..EACH {
            let byte = number * EACH + n;
            let (back, answer) = queue.commit(request(byte));
            assert_eq!(back.encoded, [byte], "another caller's request came back");
            let seqno = answer.unwrap();
            assert!(given.last().is_none_or(|&last| last < seqno), "{seqno} after {given:?}");
            queue.with_state(|journal| assert_eq!(journal.committed[seqno as usize - 1], byte));
            given.push(seqno);
        }
        given
    })
}

/// A log behind the commit lock.
struct Log {
    writer: WalWriter,
    last_seqno: SeqNo,
}

impl Commit for Log {
    fn commit(&mut self, request: &Request) -> Result<SeqNo> {
        self.last_seqno += 1;
        self.writer.append(self.last_seqno, 1, &request.encoded)?;
        self.writer.publish(self.last_seqno);
        Ok(self.last_seqno)
    }

    fn in_doubt(&mut self) {
        panic!("a commit panicked");
    }
}

/// Where the manifest says that the log begins; everything before that is in tables.
type Manifest = Mutex<Floor>;

/// The last record that a power cut now, which takes everything that is not synced, would leave.
fn last_after_power_cut(sim: &SimFileSystem, dir: &Path, manifest: &Manifest) -> SeqNo {
    // The lock: no segment that it says is needed may go meanwhile.
    let floor = manifest.lock();
    let left = sim.crash_clone(Keep::Nothing, 0);
    let (floor_segment, prev_seqno_floor) = (floor.segment, floor.prev_seqno);
    let input = ReplayInput { database_id: 1, floor_segment, synced_seqno: 0, prev_seqno_floor };
    replay(&left, dir, &input, true, &mut |_, _, _, _, _| Ok(())).unwrap().last_logged_seqno
}

/// Callers share syncs, over segments that roll and are let go of, as by flushes, and each finds its record on storage
/// when its sync is done.
#[test]
fn what_a_shared_sync_acknowledged_survives_a_power_cut() {
    explore_at_random(1500, || {
        let dir = Path::new("db");
        let sim = SimFileSystem::new();
        sim.create_dir_all(dir).unwrap();
        let options = WalOptions { segment_bytes: 4096, max_retained_bytes: u64::MAX };
        let (wal, writer) = create(Arc::new(sim.clone()), dir, 1, 1, 0, options).unwrap();
        let queue = Arc::new(CommitQueue::new(Log { writer, last_seqno: 0 }));
        let manifest = Arc::new(Mutex::new(Floor { segment: 1, prev_seqno: 0 }));
        let callers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (queue, wal, sim, manifest) = (queue.clone(), wal.clone(), sim.clone(), manifest.clone());
                thread::spawn(move || commit_synced(&queue, &wal, &sim, dir, &manifest))
            })
            .collect();
        let flushes: Vec<_> = (0..2)
            .map(|_| {
                let (wal, manifest) = (wal.clone(), manifest.clone());
                thread::spawn(move || (0..2).for_each(|_| flush(&wal, &manifest)))
            })
            .collect();
        callers.into_iter().chain(flushes).for_each(|thread| thread.join().unwrap());
        assert_eq!(wal.synced_seqno(), SeqNo::from(THREADS) * 4);
    });
}

/// Tables hold everything logged so far.
fn flush(wal: &Wal, manifest: &Manifest) {
    let mark = wal.mark();
    let floor = wal.plan_release(mark.seqno(), mark);
    wal.sync_kept(floor.map_or(0, |floor| floor.segment), mark).unwrap();
    if let Some(floor) = floor {
        let mut known = manifest.lock();
        if known.segment < floor.segment {
            *known = floor;
        }
    }
    wal.note_kept(mark);
    if let Some(floor) = floor {
        wal.release_below(floor.segment);
    }
}

fn commit_synced(queue: &CommitQueue<Log>, wal: &Wal, sim: &SimFileSystem, dir: &Path, manifest: &Manifest) {
    let commit = || queue.commit(Request { encoded: vec![7; 1500], ..request(0) }).1.unwrap();
    for _ in 0..2 {
        commit();
        let seqno = commit();
        wal.sync_through(seqno).unwrap();
        assert!(wal.synced_seqno() >= seqno);
        let left = last_after_power_cut(sim, dir, manifest);
        assert!(left >= seqno, "{seqno} was acknowledged as synced, and the cut left {left}");
    }
}
