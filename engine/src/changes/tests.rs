use super::*;
use crate::fs::{Keep, SimFileSystem};
use crate::key::MAX_SEQNO;
use crate::testing::{DIRECTORY, fill, keyspace, open, options, set_metadata, wal};

fn put(keyspace: &str, key: &str, value: &str) -> Change {
    Change::Put { keyspace: keyspace.into(), key: key.into(), value: value.into() }
}

#[test]
fn a_batch_of_changes_says_what_is_in_it() {
    let delete = Change::Delete { keyspace: "b".into(), key: "key".into() };
    let dropped = Change::DropKeyspace { keyspace: "c".into() };
    let changes = vec![put("a", "k", "value"), delete, dropped];
    let batch = ChangeBatch::new(7, changes.clone()).unwrap();
    assert_eq!((batch.first_seqno(), batch.last_seqno(), batch.user_bytes()), (7, 9, 9));
    assert_eq!(batch.changes(), changes);
    let names: Vec<_> = batch.changes().iter().map(|change| change.keyspace().to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for (first, changes) in [(0, changes.clone()), (1, vec![]), (MAX_SEQNO - 2, changes.clone()), (u64::MAX, changes)] {
        assert!(matches!(ChangeBatch::new(first, changes), Err(Error::InvalidArgument(_))), "{first}");
    }
}

#[test]
fn changes_are_read_from_any_number_up_to_the_next_one() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    ks.put("a", "1").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&ks, "b", "2").metadata("position", Some("x")).delete(&ks, "a");
    db.write(batch).unwrap();
    let read = |from| db.changes(from).unwrap().map(|batch| batch.unwrap().first_seqno()).collect::<Vec<_>>();
    assert_eq!([read(0), read(1), read(2), read(3), read(4)], [vec![1, 2], vec![1, 2], vec![2], vec![2], vec![]]);
    assert!(matches!(db.changes(5), Err(Error::InvalidArgument(_))));
    let batch = db.changes(2).unwrap().next().unwrap().unwrap();
    let delete = Change::Delete { keyspace: "ks".into(), key: "a".into() };
    assert_eq!(batch.changes(), [put("ks", "b", "2"), delete]);
}

#[test]
fn metadata_alone_is_no_change() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let mut changes = db.changes(1).unwrap();
    set_metadata(&db, "position", "1");
    assert!(changes.next().is_none());
    ks.put("k", "v").unwrap();
    set_metadata(&db, "position", "2");
    assert_eq!(changes.next().unwrap().unwrap().changes(), [put("ks", "k", "v")]);
    assert!(changes.next().is_none());
    ks.put("k", "w").unwrap();
    assert_eq!(changes.next().unwrap().unwrap().changes(), [put("ks", "k", "w")]);
}

#[test]
fn a_wait_ends_with_something_to_read_or_a_close_or_the_time() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let mut changes = db.changes(1).unwrap();
    assert!(!changes.wait(Duration::from_millis(1)));
    ks.put("k", "v").unwrap();
    assert!(changes.wait(Duration::MAX));
    changes.next().unwrap().unwrap();
    assert!(!changes.wait(Duration::ZERO));
    db.close().unwrap();
    assert!(changes.wait(Duration::ZERO), "an answer is there: that it is closed");
    assert!(matches!(changes.next(), Some(Err(Error::Closed))));
}

#[test]
fn cursor_names_have_bounds() {
    let db = open(&SimFileSystem::new());
    for (name, allowed) in [("", false), ("c", true), (&"c".repeat(200), true), (&"c".repeat(201), false)] {
        let set = db.set_change_cursor(name, 1);
        assert_eq!(set.is_ok(), allowed, "{} bytes", name.len());
        assert_eq!(db.change_cursor(name), allowed.then_some(1));
        assert!(matches!(set, Ok(()) | Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn a_cursor_keeps_the_log_also_after_a_restart_until_it_is_removed() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("first", "v").unwrap();
    db.set_change_cursor_with("mailer", 1, &[("position", b"7")]).unwrap();
    assert_eq!(db.metadata("position").unwrap(), "7");
    let killed = fs.crash_clone(Keep::All, 0);
    drop((ks, db));
    let db = open(&killed);
    let ks = keyspace(&db, "ks");
    fill(&ks, "", 700_000);
    db.flush().unwrap();
    assert_eq!((db.change_cursor("mailer"), wal(&db).oldest_retained_seqno()), (Some(1), 1));
    assert_eq!(db.changes(1).unwrap().next().unwrap().unwrap().changes(), [put("ks", "first", "v")]);
    db.remove_change_cursor("mailer").unwrap();
    assert_eq!(db.change_cursor("mailer"), None);
    ks.put("k", "v").unwrap();
    db.flush().unwrap();
    assert!(wal(&db).oldest_retained_seqno() > 1);
    assert!(matches!(db.changes(1), Err(Error::NotRetained { .. })));
}

#[test]
fn a_lost_cursor_stays_where_it_was() {
    let fs = SimFileSystem::new();
    let db = options(&fs).max_retained_wal_bytes(1).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    db.set_change_cursor("slow", 1).unwrap();
    fill(&ks, "", 700_000);
    db.flush().unwrap();
    let last = db.last_seqno();
    assert!(matches!(db.set_change_cursor("slow", last), Err(Error::NotRetained { .. })));
    assert_eq!(db.change_cursor("slow"), Some(1));
}
