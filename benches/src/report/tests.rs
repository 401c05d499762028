use super::case::Profile;
use super::testing::{record, session};
use super::*;
use crate::engines::EngineKind::*;
use crate::run::Outcome;

const STEPS: &str = "fillrandom,readwhilewriting,seekrandom:entries=10:threads=2";

/// Ours is twice as fast as the best peer in the fill and half as fast in the seeks; RocksDB failed in its second run,
/// LMDB has but one, redb came to nothing.
fn records() -> Vec<Record> {
    let failure = |engine, repetition, at, reason: &str| {
        record(engine, repetition, STEPS, at, Outcome::Failure(reason.to_owned()))
    };
    let mut records = session(Siltstone, 1, STEPS, &[1.0, 2.0, 8.0]);
    records.extend(session(RocksDb, 1, STEPS, &[2.0, 2.0, 4.0]));
    records.extend(session(Lmdb, 1, STEPS, &[4.0, 4.0, 4.0]));
    records.push(failure(Redb, 1, 0, "no <space> | left"));
    records.extend(session(Siltstone, 2, STEPS, &[1.0, 2.0, 8.0]));
    let cut_short = session(RocksDb, 2, STEPS, &[2.0]);
    records.extend(cut_short.into_iter().filter(|record| !matches!(record.outcome, Outcome::Details(_))));
    records.push(failure(RocksDb, 2, 1, "wrong answer: key 7"));
    let unavailable = Outcome::Unavailable("no cgroup".to_owned());
    records.push(record(Siltstone, 1, "fillseq", 0, unavailable));
    records
}

fn only(report: &Report) -> &Profile {
    assert_eq!(report.findings.profiles.len(), 1);
    &report.findings.profiles[0]
}

fn cells(table: &table::Table) -> Vec<Vec<&str>> {
    table.rows().iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect()).collect()
}

#[test]
fn ratios_are_those_to_the_best_peer_and_losses_are_called_so() {
    let report = Report::new(&records());
    let table = tables::ratios(only(&report));
    let expected = [
        ["fillrandom", "1,000 (0 %)", "500 (0 %)", "- (0 of 2 runs)", "250 (0 %, 1 of 2 runs)", "rocksdb", "2.00"],
        [
            "readwhilewriting: gets",
            "500 (0 %)",
            "500 (0 %, 1 of 2 runs)",
            "- (0 of 2 runs)",
            "250 (0 %, 1 of 2 runs)",
            "rocksdb",
            "1.00",
        ],
        [
            "readwhilewriting: puts",
            "125 (0 %)",
            "125 (0 %, 1 of 2 runs)",
            "- (0 of 2 runs)",
            "62.5 (0 %, 1 of 2 runs)",
            "rocksdb",
            "1.00",
        ],
        [
            "seekrandom + 10, 2 threads",
            "125 (0 %)",
            "250 (0 %, 1 of 2 runs)",
            "- (0 of 2 runs)",
            "250 (0 %, 1 of 2 runs)",
            "lmdb",
            "0.500 loss",
        ],
    ];
    assert_eq!(cells(&table), expected);
    assert_eq!(table.rows()[3][6].mark, table::Mark::Bad);
    assert_eq!(table.rows()[0][6].mark, table::Mark::Good);
}

#[test]
fn medians_and_spreads_are_over_all_runs_of_all_files() {
    let runs = [1.0, 4.0, 2.0].into_iter().zip(1..);
    let records: Vec<Record> =
        runs.flat_map(|(seconds, run)| session(Siltstone, run, "fillrandom", &[seconds])).collect();
    let report = Report::new(&records);
    let summary = only(&report).cases[0].summary(Siltstone, Figure::Rate).unwrap();
    assert_eq!((summary.median, summary.spread(), summary.runs), (500_000.0, 1.5, 3));
    // The same repetitions again, from another file.
    let report = Report::new(&[records.clone(), records].concat());
    let series = &only(&report).cases[0].series[&Siltstone];
    assert_eq!((series.measurements.len(), series.expected), (6, 6));
    assert_eq!(cells(&tables::ratios(only(&report))), [["fillrandom", "500 (150 %)"]], "no peers, no ratios");
}

#[test]
fn what_cannot_be_compared_stands_apart_and_what_can_does_not() {
    let change = |mut records: Vec<Record>, change: fn(&mut Record)| {
        records.iter_mut().for_each(change);
        records
    };
    let mut records = session(Siltstone, 1, STEPS, &[1.0, 2.0, 8.0]);
    records.extend(change(session(Siltstone, 1, STEPS, &[1.0]), |record| record.settings.value_bytes = 1024));
    records.extend(change(session(Siltstone, 1, STEPS, &[1.0]), |record| record.settings.memory_limit_mib = Some(64)));
    records.extend(change(session(Siltstone, 1, STEPS, &[1.0]), |record| record.machine = "another".to_owned()));
    let writes = "fillrandom,overwrite,readrandom,deleterandom,readrandom,fillrandom";
    records.extend(change(session(Siltstone, 1, writes, &[3.0, 1.0, 1.0, 1.0, 1.0, 1.0]), |record| {
        record.session = "writes, 100 B".to_owned();
    }));
    let report = Report::new(&records);
    assert_eq!(report.findings.profiles.len(), 4);
    let cases = &report.findings.profiles[0].cases;
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let expected = [
        "fillrandom (main)",
        "readwhilewriting",
        "seekrandom + 10, 2 threads",
        "overwrite",
        "readrandom after overwrite",
        "deleterandom",
        "readrandom after deleterandom",
        "fillrandom (writes)",
    ];
    assert_eq!(names, expected);
    let first = &cases[0].series[&Siltstone];
    assert_eq!((first.measurements.len(), first.expected), (2, 2), "both sessions begin with the same fill");
}

#[test]
fn what_did_not_settle_has_no_figures_once_idle() {
    let mut records = session(Siltstone, 1, "fillrandom,overwrite,readuncompacted", &[1.0, 1.0, 1.0]);
    let Outcome::Measurement(overwrite) = &mut records[1].outcome else { panic!("it is one") };
    overwrite.settled = false;
    overwrite.cut = true;
    let report = Report::new(&records);
    let case = &only(&report).cases[1];
    assert_eq!(case.summary(Siltstone, Figure::SpaceAmplification), None);
    assert!(case.summary(Siltstone, Figure::Rate).is_some());
    let (goals, _) = tables::goals(only(&report));
    let about_overwrite = cells(&goals).into_iter().filter(|row| row[0] == "overwrite").map(|row| row[1]);
    assert_eq!(about_overwrite.collect::<Vec<_>>(), ["p99.9 us", "max us"]);
    assert!(tables::ratios(only(&report)).to_string().contains("1,000 (0 %, cut)"));
}

#[test]
fn threads_of_another_run_are_another_case() {
    let mut records = session(Siltstone, 1, "fillrandom", &[1.0]);
    let mut two = session(Siltstone, 1, "fillrandom", &[2.0]);
    two.iter_mut().for_each(|record| record.settings.threads = 2);
    records.extend(two);
    let report = Report::new(&records);
    let names: Vec<&str> = only(&report).cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["fillrandom", "fillrandom, 2 threads"]);
    assert!(only(&report).cases.iter().all(|case| !case.series[&Siltstone].is_incomplete()));
}

#[test]
fn steps_that_nobody_came_to_are_there() {
    let failure = Outcome::Failure("died".to_owned());
    let report = Report::new(&[record(Siltstone, 1, STEPS, 0, failure)]);
    let rows = tables::ratios(only(&report));
    assert_eq!(rows.rows().len(), 4, "readwhilewriting has two");
    assert!(rows.rows().iter().all(|row| row[1].text == "- (0 of 1 runs)"), "{rows}");
}

#[test]
fn failures_come_first_and_are_told() {
    let report = Report::new(&records());
    assert_eq!(
        report.failures(),
        ["redb, basic/main, repetition 1: no <space> | left", "rocksdb, basic/main, repetition 2: wrong answer: key 7",]
    );
    for text in [report.to_markdown(), report.to_html(), report.to_string()] {
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(at("wrong answer: key 7") < at("no cgroup") && at("no cgroup") < at("fillrandom"), "{text}");
        assert!(at("Some runs are missing") < at("fillrandom"));
        for origin in ["rustc 1.95.0", "rocksdb 1.2", "rocksdb: see *there*"] {
            assert!(text.contains(origin), "{origin}: {text}");
        }
    }
}

#[test]
fn goals_are_judged_by_what_was_measured() {
    let report = Report::new(&records());
    let (table, score) = tables::goals(only(&report));
    let rows = cells(&table);
    let stands = |workload: &str, figure: &str| {
        let found = rows.iter().find(|row| row[0] == workload && row[1].starts_with(figure));
        found.unwrap_or_else(|| panic!("{workload} {figure}: {table}"))[3]
    };
    // 1,000 is less than 3 times 500.
    assert_eq!(stands("fillrandom", "thousand operations"), "missed (without fjall, redb, surrealkv)");
    assert_eq!(stands("readwhilewriting", "thousand gets"), "reached");
    assert_eq!(stands("readwhilewriting", "thousand puts"), "missed (without fjall, redb, surrealkv)");
    assert_eq!(stands("fillrandom", "CPU us"), "reached");
    assert_eq!(stands("fillrandom", "WA"), "reached");
    assert!(!rows.iter().any(|row| row[0].starts_with("seekrandom")), "the goal is for one thread");
    assert_eq!((score.reached, score.missed, score.open), (3, 2, 0));
}

#[test]
fn where_tables_are_compressed_engines_that_cannot_do_not_count() {
    let mut records = records();
    records.iter_mut().for_each(|record| record.settings.compression = Compression::Lz4);
    let report = Report::new(&records);
    let (table, _) = tables::goals(only(&report));
    let rows = cells(&table);
    assert!(!rows.iter().any(|row| row[2] == "<= lmdb" || row[2] == ">= lmdb"), "{table}");
    let fill = rows.iter().find(|row| row[2] == ">= 3x rocksdb and >= 1.7x best").unwrap();
    assert_eq!(fill[3], "missed (without fjall, surrealkv)");
}

#[test]
fn all_goals_parse_and_are_about_something() {
    for goal in GOALS {
        let formula: Formula = goal.formula.parse().unwrap();
        assert!(formula.operands().count() > 0, "{goal:?}");
        if let Figure::RateOf(kind) = goal.figure {
            assert!(goal.workload.kinds().contains(&kind), "{goal:?}");
        }
    }
}

#[test]
fn a_page_of_a_run_is_well_formed_and_has_its_plots() {
    let html = Report::new(&records()).to_html();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&html, options).unwrap();
    let count = |tag: &str| page.descendants().filter(|node| node.tag_name().name() == tag).count();
    // Four speeds (readwhilewriting has two), and for each of three cases latencies, two courses, and levels.
    assert_eq!((count("svg"), count("figure")), (4 + 3 * 4, 4 + 3 * 4));
    assert_eq!(count("script") + count("link") + count("img"), 0);
    let captions: Vec<&str> = page
        .descendants()
        .filter(|node| node.tag_name().name() == "figcaption")
        .filter_map(|node| node.text())
        .collect();
    for caption in ["fillrandom: latencies", "fillrandom: write amplification so far", "fillrandom: levels"] {
        assert!(captions.contains(&caption), "{captions:?}");
    }
    assert!(html.contains("siltstone &lt;says&gt;"));
}

#[test]
fn results_files_merge_and_lines_that_are_no_records_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.jsonl"), dir.path().join("second.jsonl"));
    let line = |record: &Record| serde_json::to_string(record).unwrap() + "\n";
    let records = records();
    let (some, others) = records.split_at(5);
    std::fs::write(&first, some.iter().map(line).collect::<String>()).unwrap();
    let half = &line(&others[0])[..100];
    std::fs::write(&second, others.iter().map(line).collect::<String>() + "\n" + half).unwrap();
    let merged = Report::read(&[first.clone(), second]).unwrap();
    assert_eq!(tables::ratios(only(&merged)), tables::ratios(only(&Report::new(&records))));
    let told = merged.failures().pop().unwrap();
    assert!(told.contains("second.jsonl, line 17: no record"), "{told}");
    let (markdown, html) = (dir.path().join("report.md"), dir.path().join("report.html"));
    merged.write(Some(&markdown), Some(&html)).unwrap();
    assert!(std::fs::read_to_string(&markdown).unwrap().starts_with("# siltstone"));
    assert!(std::fs::read_to_string(&html).unwrap().starts_with("<!DOCTYPE html>"));

    std::fs::write(&first, "{\"engine\": \"leveldb\"}\n").unwrap();
    let error = Report::read(std::slice::from_ref(&first)).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    std::fs::write(&first, "").unwrap();
    assert!(Report::read(&[first]).is_err());
    assert!(Report::read(&[dir.path().join("absent")]).is_err());
}

#[test]
fn a_record_of_an_older_file_is_read() {
    let line = r#"{"engine":"siltstone","repetition":1,"machine":"m","version":"0.1.0",
        "settings":{"keys":10,"key_bytes":16,"value_bytes":100,"seed":42,"threads":1,"memory_mib":256,
            "durability":"buffered","compression":"none","block_bytes":4096,"reads":null,"seeks":null,"seek_entries":10,
            "scan_passes":5},
        "measurement":{"workload":"readrandom","ops":10,"seconds":0.5,"idle_seconds":0.0,
            "latencies":{"p50_us":1.0,"p99_us":1.0,"p999_us":1.0,"max_us":1.0,"samples":1},
            "caller_cpu_ns":1,"cpu_ns":1,"user_bytes":0,"device_write_bytes":null,"engine_write_bytes":null,
            "disk_bytes":1,"table_bytes":null,"live_bytes":1,"peak_rss_bytes":null,"anonymous_bytes":null}}"#;
    let record: Record = serde_json::from_str(line).unwrap();
    let report = Report::new(&[record]);
    assert_eq!(cells(&tables::ratios(only(&report))), [["readrandom", "0.0200 (0 %)"]]);
    assert!(!report.to_html().contains("readrandom: latencies"), "without a curve there is no plot of it");
}
