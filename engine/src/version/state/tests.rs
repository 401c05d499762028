use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::version::version::testing::table;

fn created(id: KeyspaceId, name: &str) -> Edit {
    Edit {
        created: vec![KeyspaceCreated { id, name: name.into(), options: KeyspaceOptions::new() }],
        ..Edit::default()
    }
}

fn change(id: KeyspaceId, removed: Vec<(usize, u64)>, added: Vec<(usize, TableMeta)>) -> Edit {
    Edit { keyspaces: vec![KeyspaceEdit { id, flushed_seqno: None, removed, added }], ..Edit::default() }
}

/// Two live keyspaces, one dropped, one forgotten; tables 1 to 4 in the first.
fn sample() -> ManifestState {
    let mut state = ManifestState::default();
    let edits = [
        Edit { database_id: Some(77), next_file_number: Some(1), ..created(0, "a") },
        created(1, "b"),
        created(2, "c"),
        created(3, "d"),
        change(0, vec![], vec![(0, table(1, b"a", b"m", 1, 10)), (0, table(2, b"c", b"z", 11, 20))]),
        change(0, vec![], vec![(6, table(4, b"m", b"z", 0, 3)), (6, table(3, b"a", b"c", 0, 4))]),
        Edit { dropped: vec![(1, 33), (2, 21)], forgotten: vec![2], ..Edit::default() },
        Edit {
            log_floor: Some(LogFloor { segment: 5, prev_seqno: 20 }),
            log_synced_seqno: Some(40),
            ingested_seqno: Some(38),
            options_changed: vec![(3, KeyspaceOptions::new().level_ratio(4))],
            ..created(4, "b")
        },
    ];
    for edit in &edits {
        state.apply(edit).unwrap();
    }
    state
}

#[test]
fn edits_add_up() {
    let state = sample();
    assert_eq!((state.database_id, state.next_keyspace_id, state.next_file_number, state.last_seqno), (77, 5, 5, 40));
    assert_eq!(state.keyspaces.keys().copied().collect::<Vec<_>>(), [0, 3, 4]);
    assert_eq!(state.dropped[&1], DroppedKeyspace { name: "b".into(), seqno: 33 });
    let numbers = |level: usize| state.keyspaces[&0].levels[level].iter().map(|meta| meta.number).collect::<Vec<_>>();
    assert_eq!((numbers(0), numbers(6)), (vec![2, 1], vec![3, 4]));
    assert_eq!(state.keyspaces[&3].options.level_ratio, 4);
    assert_eq!(state.log_floor, LogFloor { segment: 5, prev_seqno: 20 });
}

fn rebuilt(state: &ManifestState) -> ManifestState {
    let mut rebuilt = ManifestState::default();
    for edit in state.to_edits() {
        rebuilt.apply(&Edit::decode(&edit.encode()).unwrap()).unwrap();
    }
    rebuilt
}

#[test]
fn a_snapshot_is_the_same_state() {
    assert_eq!(rebuilt(&sample()), sample());
    assert_eq!(rebuilt(&ManifestState::default()), ManifestState::default());
    // Numbers that no keyspace, table or log speaks of any more.
    let mut ahead = sample();
    let metadata = [("name".to_owned(), b"value".to_vec())].into();
    let edit = Edit {
        next_keyspace_id: Some(50),
        next_file_number: Some(60),
        last_seqno: Some(70),
        metadata: Some(metadata),
        keyspaces: vec![KeyspaceEdit { id: 3, flushed_seqno: Some(65), ..KeyspaceEdit::default() }],
        ..Edit::default()
    };
    ahead.apply(&edit).unwrap();
    assert_eq!((ahead.next_keyspace_id, ahead.next_file_number, ahead.last_seqno), (50, 60, 70));
    assert_eq!((ahead.metadata.len(), ahead.keyspaces[&3].flushed_seqno), (1, 65));
    assert_eq!(rebuilt(&ahead), ahead);
    let mut large = sample();
    let many = (0..3000u64).map(|n| (5, table(100 + n, &n.to_be_bytes(), &n.to_be_bytes(), n, n))).collect();
    large.apply(&change(4, vec![], many)).unwrap();
    assert!(large.to_edits().iter().all(|edit| edit.encode().len() < 100_000));
    assert_eq!(rebuilt(&large), large);
}

#[test]
fn what_does_not_fit_is_refused() {
    let fresh = |number| table(number, b"x", b"y", 1, 2);
    let refused: Vec<(&str, Edit)> = vec![
        ("removing an absent table", change(0, vec![(0, 9)], vec![])),
        ("removing from another level", change(0, vec![(1, 1)], vec![])),
        ("a number twice in a level", change(0, vec![], vec![(0, fresh(1))])),
        ("a number of another keyspace", change(4, vec![], vec![(0, fresh(1))])),
        ("a number twice in one edit", change(4, vec![], vec![(0, fresh(9)), (1, fresh(9))])),
        ("overlap", change(0, vec![], vec![(6, table(9, b"c", b"d", 1, 1))])),
        ("overlap within one edit", change(4, vec![], vec![(3, fresh(9)), (3, fresh(10))])),
        ("a level out of range", change(4, vec![], vec![(LEVELS, fresh(9))])),
        ("removal out of range", change(0, vec![(LEVELS, 1)], vec![])),
        ("the largest number", change(4, vec![], vec![(1, fresh(u64::MAX))])),
        ("an impossible table", change(4, vec![], vec![(1, table(9, b"y", b"x", 1, 2))])),
        ("a keyspace that is not there", change(9, vec![], vec![])),
        ("a dropped keyspace", change(1, vec![], vec![])),
        ("an id again", created(1, "new")),
        ("a name twice", created(9, "a")),
        ("no name", created(9, "")),
        ("a control character in a name", created(9, "pack\u{4}d")),
        ("the last id", created(KeyspaceId::MAX, "new")),
        ("dropping what is not there", Edit { dropped: vec![(1, 99)], ..Edit::default() }),
        ("forgetting a live one", Edit { forgotten: vec![0], ..Edit::default() }),
        ("forgetting twice", Edit { forgotten: vec![1, 1], ..Edit::default() }),
        ("options of nobody", Edit { options_changed: vec![(1, KeyspaceOptions::new())], ..Edit::default() }),
        ("another database", Edit { database_id: Some(78), ..Edit::default() }),
        ("ids back", Edit { next_keyspace_id: Some(4), ..Edit::default() }),
        ("numbers back", Edit { next_file_number: Some(4), ..Edit::default() }),
        ("seqno back", Edit { last_seqno: Some(39), ..Edit::default() }),
        ("ingested back", Edit { ingested_seqno: Some(37), ..Edit::default() }),
        ("synced back", Edit { log_synced_seqno: Some(39), ..Edit::default() }),
        ("floor back", Edit { log_floor: Some(LogFloor { segment: 4, prev_seqno: 30 }), ..Edit::default() }),
        ("floor seqno back", Edit { log_floor: Some(LogFloor { segment: 6, prev_seqno: 19 }), ..Edit::default() }),
    ];
    for (what, edit) in refused {
        assert!(sample().apply(&edit).is_err(), "{what}");
    }
    let again = Edit {
        database_id: Some(77),
        next_keyspace_id: Some(5),
        next_file_number: Some(5),
        last_seqno: Some(40),
        log_floor: Some(LogFloor { segment: 5, prev_seqno: 20 }),
        log_synced_seqno: Some(40),
        ingested_seqno: Some(38),
        ..Edit::default()
    };
    let mut state = sample();
    state.apply(&again).unwrap();
    assert_eq!(state, sample(), "what is said twice changes nothing");
    let flushed = |seqno| Edit {
        keyspaces: vec![KeyspaceEdit { id: 0, flushed_seqno: Some(seqno), ..KeyspaceEdit::default() }],
        ..Edit::default()
    };
    state.apply(&flushed(50)).unwrap();
    assert_eq!(state.last_seqno, 50);
    assert!(state.apply(&flushed(49)).is_err());
}

#[test]
fn a_table_changes_its_level_in_one_edit() {
    let mut state = sample();
    state.apply(&change(0, vec![(6, 3)], vec![(5, table(3, b"a", b"c", 0, 4))])).unwrap();
    assert_eq!(state.keyspaces[&0].levels[5].len(), 1);
    assert!(state.apply(&change(0, vec![], vec![(4, table(3, b"a", b"c", 0, 4))])).is_err());
}

/// Whatever order the tables of a level are added in, the order of the level is the same.
#[test]
fn level_order_does_not_depend_on_edit_order() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tables: Vec<_> =
            (1..60u64).map(|n| ((n % 2) as usize, table(n, &[n as u8], &[n as u8], n % 7, n % 7 + n / 9))).collect();
        let build = |tables: &[(usize, TableMeta)]| {
            let mut state = ManifestState::default();
            state.apply(&created(0, "a")).unwrap();
            tables.iter().for_each(|table| state.apply(&change(0, vec![], vec![table.clone()])).unwrap());
            state
        };
        let expected = build(&tables);
        for at in (1..tables.len()).rev() {
            tables.swap(at, rng.random_range(0..=at));
        }
        assert_eq!(build(&tables), expected, "seed {seed}");
    }
}
