//! Each fault, at each kind of call.

use super::*;
use crate::fs::{Keep, SimFileSystem};

/// One call of every kind, in a fixed order; answers with the numbers (from 1) of those that failed.
fn every_call(fs: &FaultFileSystem) -> Vec<usize> {
    let sim = SimFileSystem::new();
    sim.write("t".as_ref(), b"0123").unwrap();
    let fs = FaultFileSystem { inner: Arc::new(sim), plan: fs.plan.clone() };
    let unwrapped = FaultFileSystem::new(fs.inner.clone());
    let mut file = fs.wrap("f".as_ref(), true, unwrapped.create("f".as_ref()).unwrap());
    let mut mapped = fs.wrap("g".as_ref(), true, unwrapped.create_mapped("g".as_ref(), 8).unwrap());
    let reader = fs.wrap("t".as_ref(), false, unwrapped.open("t".as_ref()).unwrap());
    let answers = [
        fs.create("a".as_ref()).err(),
        fs.open_append("t".as_ref()).err(),
        fs.open("t".as_ref()).err(),
        fs.create_mapped("m".as_ref(), 8).err(),
        fs.create_dir_all("d".as_ref()).err(),
        fs.read_dir("".as_ref()).err(),
        fs.sync_dir("".as_ref()).err(),
        fs.lock("l".as_ref(), LockKind::Exclusive).err(),
        fs.truncate("t".as_ref(), 3).err(),
        file.append(b"silt").err(),
        file.sync().err(),
        file.start_writeback(0..1).err(),
        reader.len().err(),
        reader.read_exact_at(&mut [0], 0).err(),
        reader.map().err(),
        mapped.write_at(0, b"silt").err(),
        mapped.syncer().sync(0..4).err(),
        fs.rename("t".as_ref(), "u".as_ref()).err(),
        fs.remove_file("f".as_ref()).err(),
    ];
    (1..).zip(&answers).filter(|(_, answer)| answer.is_some()).map(|(n, _)| n).collect()
}

#[test]
fn exactly_the_chosen_calls_fail() {
    let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
    assert!(every_call(&fs).is_empty());
    assert_eq!(fs.calls(), 19);
    for n in 1..=19 {
        fs.fail_at(n as u64, Fault::Io);
        assert_eq!(every_call(&fs), [n]);
        fs.fail_from(n as u64, Fault::NoSpace);
        assert_eq!(every_call(&fs), (n..=19).collect::<Vec<_>>());
        fs.clear();
    }
    for (op, n) in [(Op::Len, 13), (Op::Read, 14), (Op::Map, 15)] {
        fs.only(op);
        fs.fail_at(1, Fault::Io);
        assert_eq!(every_call(&fs), [n]);
        assert_eq!(fs.injected(), Some(Injected { op, path: "t".into() }));
    }
}

#[test]
fn faults_look_like_the_systems_own() {
    let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
    fs.fail_from(1, Fault::NoSpace);
    assert_eq!(fs.sync_dir("".as_ref()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    fs.fail_at(1, Fault::Io);
    assert_eq!(fs.clone().sync_dir("".as_ref()).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn a_short_write_puts_half() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let mut file = fs.create("a".as_ref()).unwrap();
    let mut mapped = fs.create_mapped("m".as_ref(), 4).unwrap();
    fs.fail_from(1, Fault::ShortWrite);
    assert!(file.append(b"silt").is_err());
    assert!(mapped.write_at(0, b"silt").is_err());
    assert_eq!(
        (sim.read("a".as_ref()).unwrap(), sim.read("m".as_ref()).unwrap()),
        (b"si".to_vec(), b"si\0\0".to_vec())
    );
}

#[test]
fn a_late_failure_did_its_work() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    fs.fail_from(1, Fault::Late);
    assert!(fs.create("a".as_ref()).is_err());
    fs.clear();
    let mut file = fs.create("a".as_ref()).unwrap();
    fs.fail_from(1, Fault::Late);
    assert!(file.append(b"silt").is_err() && file.sync().is_err() && fs.sync_dir("".as_ref()).is_err());
    assert!(fs.rename("a".as_ref(), "b".as_ref()).is_err());
    assert_eq!(sim.read("b".as_ref()).unwrap(), b"silt");
    assert_eq!(sim.crash_clone(Keep::Nothing, 0).read("a".as_ref()).unwrap(), b"silt");
}

/// As with a failed `fsync` of Linux: the pages count as clean, so that only a new file gets the data to storage.
#[test]
fn dropped_pages_are_read_but_never_durable() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let (a, b, m) = (Path::new("a"), Path::new("b"), Path::new("m"));
    let mut file = fs.create(a).unwrap();
    let mapped = fs.create_mapped(m, 4).unwrap();
    file.append(b"silt").unwrap();
    fs.sync_dir("".as_ref()).unwrap();
    fs.fail_from(1, Fault::DroppedPages);
    assert!(file.sync().is_err() && mapped.syncer().sync(0..4).is_err());
    fs.clear();
    file.sync().unwrap();
    mapped.syncer().sync(0..4).unwrap();
    fs.rename(a, b).unwrap();
    fs.open_append(b).unwrap().sync().unwrap();
    fs.sync_dir("".as_ref()).unwrap();
    let mut found = [0; 4];
    fs.open(b).unwrap().read_exact_at(&mut found, 0).unwrap();
    let left = sim.crash_clone(Keep::Nothing, 0);
    assert_eq!((&found[..], left.read(b).unwrap().len(), left.read(m).unwrap().len()), (&b"silt"[..], 0, 0));
    let mut file = fs.create(b).unwrap();
    file.append(b"again").unwrap();
    file.sync().unwrap();
    assert_eq!(sim.crash_clone(Keep::Nothing, 0).read(b).unwrap(), b"again");
}
