use super::*;

fn ledger() -> Ledger {
    Ledger::new(&Dataset::new(100, 16, 100, 42).unwrap())
}

fn put(ledger: &Ledger, id: u64) {
    let claim = ledger.begin_put(id).unwrap();
    claim.complete();
}

fn value(ledger: &Ledger, id: u64, version: u64) -> Vec<u8> {
    let mut value = Vec::new();
    ledger.data().value(id, version, &mut value);
    value
}

fn message(answer: Result<()>) -> String {
    answer.unwrap_err().to_string()
}

#[test]
fn what_is_complete_must_be_answered_and_nothing_else() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    let before = ledger.know(id);
    assert!(ledger.check_missing(id, before).is_ok());
    assert!(message(ledger.check(id, before, &value(&ledger, id, 1))).contains("never written"));
    put(&ledger, id);
    put(&ledger, id);
    let before = ledger.know(id);
    assert!(ledger.check(id, before, &value(&ledger, id, 2)).is_ok());
    assert!(message(ledger.check_missing(id, before)).contains("is missing"));
    assert!(message(ledger.check(id, before, &value(&ledger, id, 1))).contains("is that of version 1"));
    assert!(ledger.check(id, before, &value(&ledger, id, 3)).is_err(), "not written yet");
    let claim = ledger.begin_delete(id).unwrap();
    claim.complete();
    let before = ledger.know(id);
    assert!(ledger.check_missing(id, before).is_ok());
    assert!(message(ledger.check(id, before, &value(&ledger, id, 2))).contains("was deleted"));
    put(&ledger, id);
    assert!(ledger.check(id, ledger.know(id), &value(&ledger, id, 4)).is_ok());
}

#[test]
fn beside_a_put_the_old_and_the_new_value_are_right() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    put(&ledger, id);
    put(&ledger, id);
    let early = ledger.know(id);
    let claim = ledger.begin_put(id).unwrap();
    let during = ledger.know(id);
    for before in [early, during] {
        assert!(ledger.check(id, before, &value(&ledger, id, 2)).is_ok());
        assert!(ledger.check(id, before, &value(&ledger, id, 3)).is_ok());
        assert!(ledger.check(id, before, &value(&ledger, id, 1)).is_err(), "overwritten before the read");
        assert!(ledger.check(id, before, &value(&ledger, id, 4)).is_err(), "not begun yet");
        assert!(ledger.check_missing(id, before).is_err());
    }
    claim.complete();
    put(&ledger, id);
    assert!(ledger.check(id, early, &value(&ledger, id, 3)).is_ok(), "it was there for a time");
    assert!(ledger.check(id, ledger.know(id), &value(&ledger, id, 3)).is_err());
}

#[test]
fn beside_a_first_put_and_beside_a_delete_a_key_may_be_there_or_not() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    let empty = ledger.know(id);
    let claim = ledger.begin_put(id).unwrap();
    for before in [empty, ledger.know(id), Known::NOTHING] {
        assert!(ledger.check_missing(id, before).is_ok());
        assert!(ledger.check(id, before, &value(&ledger, id, 1)).is_ok());
    }
    claim.complete();
    assert!(ledger.check_missing(id, empty).is_ok(), "the read began before");
    assert!(ledger.check_missing(id, ledger.know(id)).is_err());
    let claim = ledger.begin_delete(id).unwrap();
    let during = ledger.know(id);
    assert!(ledger.check_missing(id, during).is_ok());
    assert!(ledger.check(id, during, &value(&ledger, id, 1)).is_ok());
    claim.complete();
    assert!(ledger.check(id, during, &value(&ledger, id, 1)).is_ok());
    assert!(ledger.check(id, ledger.know(id), &value(&ledger, id, 1)).is_err());
}

#[test]
fn values_of_variable_size_are_told_from_fixed_ones() {
    let mut ledger = ledger();
    let id = ledger.data().loaded(7);
    put(&ledger, id);
    let before = ledger.know(id);
    ledger.set_variable(true);
    assert!(ledger.check(id, before, &value(&ledger, id, 1)).is_ok());
    put(&ledger, id);
    assert!(ledger.check(id, before, &value(&ledger, id, 2 | VARIABLE)).is_ok());
    let before = ledger.know(id);
    assert_eq!(before.version(), 2 | VARIABLE);
    assert!(ledger.check(id, before, &value(&ledger, id, 2)).is_err());
    assert_eq!(ledger.live(), (1, ledger.data().entry_bytes(id, 2 | VARIABLE)));
    ledger.set_variable(false);
    assert!(ledger.check(id, before, &value(&ledger, id, 2 | VARIABLE)).is_ok());
    put(&ledger, id);
    assert_eq!((ledger.know(id).version(), ledger.live()), (3, (1, 116)));
}

#[test]
fn records_are_those_of_the_fill_and_then_the_inserted_ones() {
    let mut ledger = ledger();
    let data = ledger.data().clone();
    let order = data.order(100, 1);
    ledger.fill(FillOrder::Random(order.clone()), 30);
    assert_eq!((ledger.records(), ledger.id_of(29)), (30, data.loaded(order.at(29))));
    assert!(message(ledger.insert().map(drop)).contains("no room"));
    assert!(!ledger.has_inserts());
    let mut ledger = Ledger::new(&data);
    ledger.make_room();
    ledger.fill(FillOrder::Ascending, 30);
    let mut inserted = std::collections::BTreeSet::new();
    for insert in 0..100 {
        let id = ledger.insert().unwrap();
        assert!(!data.is_loaded(id) && inserted.insert(id));
        put(&ledger, id);
        assert_eq!(ledger.records(), 30 + insert);
        ledger.inserted();
        assert_eq!(ledger.id_of(30 + insert), id);
    }
    assert!(message(ledger.insert().map(drop)).contains("no room"));
    assert_eq!((ledger.records(), ledger.id_of(29)), (130, data.loaded(29)));
    assert_eq!(ledger.live(), (100, 100 * 116));
    assert_eq!(ledger.memory_bytes(), 800);
}

#[test]
fn writers_of_one_key_take_turns() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    let store = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let claim = ledger.begin_put(id).unwrap();
                    // Lost updates show that two had the key at once.
                    let value = store.load(Ordering::Relaxed) + 1;
                    assert_eq!(value, claim.version);
                    store.store(value, Ordering::Relaxed);
                    claim.complete();
                }
            });
        }
    });
    assert_eq!((ledger.know(id).version(), store.into_inner()), (40_000, 40_000));
}

#[test]
fn a_write_that_failed_blocks_nobody() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    put(&ledger, id);
    drop(ledger.begin_put(id).unwrap());
    assert_eq!(ledger.begin_put(id).unwrap().version, 2);
}

#[test]
fn a_number_that_does_not_fit_is_refused() {
    let ledger = ledger();
    let id = ledger.data().loaded(7);
    let full = (MAX_NUMBER as u32) << NUMBER_SHIFT | LIVE;
    ledger.word(id).unwrap().store(full, Ordering::Relaxed);
    assert!(ledger.begin_put(id).unwrap_err().to_string().contains("use more keys"));
    assert_eq!(ledger.know(id), Known(full));
}
