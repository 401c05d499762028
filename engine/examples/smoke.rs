//! throw-away
use std::time::Instant;
fn key(i: u64) -> [u8; 16] {
    let h = i.wrapping_mul(0x9E3779B97F4A7C15);
    let mut k = [0; 16];
    k[..8].copy_from_slice(&h.to_be_bytes());
    k[8..].copy_from_slice(&i.to_be_bytes());
    k
}
fn main() {
    let n: u64 = std::env::args().nth(1).map_or(2_000_000, |a| a.parse().unwrap());
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let db = siltstone::Options::new().open(dir.path()).unwrap();
    let ks = db.keyspace("k", siltstone::KeyspaceOptions::new().compression(siltstone::Compression::None)).unwrap();
    let v = vec![7u8; 100];
    let t = Instant::now();
    for i in 0..n {
        ks.put(key(i), &v).unwrap();
    }
    println!("put {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    let t = Instant::now();
    db.wait_for_compaction().unwrap();
    println!("idle after {:?}", t.elapsed());
    println!("{}", db.metrics());
    for _ in 0..2 {
        let t = Instant::now();
        let mut x = 12345u64;
        for _ in 0..n {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let i = (x >> 33) % n;
            assert!(ks.get(key(i)).unwrap().is_some(), "{i}");
        }
        println!("get {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    }
    let t = Instant::now();
    let mut x = 12345u64;
    for _ in 0..n {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let i = (x >> 33) % n;
        assert!(ks.get(&key(i)[..15]).unwrap().is_none());
    }
    println!("miss {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    let t = Instant::now();
    let c = ks.iter().map(|e| e.unwrap()).count();
    assert_eq!(c as u64, n);
    println!("scan {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    let t = Instant::now();
    let c = ks.iter().rev().map(|e| e.unwrap()).count();
    assert_eq!(c as u64, n);
    println!("rscan {:.0} ns", t.elapsed().as_nanos() as f64 / n as f64);
    let t = Instant::now();
    for _ in 0..n / 10 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let i = (x >> 33) % n;
        for e in ks.range(key(i)..).take(10) {
            e.unwrap();
        }
    }
    println!("seek10 {:.0} ns", t.elapsed().as_nanos() as f64 / (n / 10) as f64);
    println!("verify {}", db.verify());
    drop(ks);
    drop(db);
    let t = Instant::now();
    let db = siltstone::Db::open(dir.path()).unwrap();
    println!("reopen {:?}", t.elapsed());
    let ks = db.keyspace("k", siltstone::KeyspaceOptions::new().compression(siltstone::Compression::None)).unwrap();
    assert_eq!(ks.iter().count() as u64, n);
    let t = Instant::now();
    ks.compact().unwrap();
    println!("compact {:?}", t.elapsed());
    assert_eq!(ks.iter().count() as u64, n);
}
