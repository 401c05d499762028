//! Counts the words of a Kafka topic, each exactly once, though the process is killed again and again.
//!
//! ```sh
//! cargo run --release -p siltstone-changelog --features kafka --example kafka_state -- localhost:9092
//! ```
//!
//! The program starts itself as a worker, kills it (SIGKILL) after a moment, and starts it again, until everything is
//! counted. The worker's counts are in a database whose log is in Kafka. With each commit, one transaction of Kafka holds
//! the changes of the counts, the records that the worker puts out, and how far the group has read. Then the machine is
//! lost: the state is restored from Kafka alone, and checked, as what was put out is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use siltstone_changelog::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use siltstone_changelog::rdkafka::client::DefaultClientContext;
use siltstone_changelog::rdkafka::consumer::{BaseConsumer, Consumer};
use siltstone_changelog::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use siltstone_changelog::rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use siltstone_changelog::store::KeyValueStore;
use siltstone_changelog::{Inputs, KafkaOptions, KafkaSink, KafkaSource, Restore, Task, TaskOptions};

type Error = Box<dyn std::error::Error>;

/// The words to count.
const WORDS: [&str; 7] = ["silt", "stone", "sand", "clay", "silt", "loam", "silt"];
const INPUTS: usize = 4_000;

/// So many words are counted together.
const COMMIT: usize = 100;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Where everything is.
#[derive(Clone, Debug)]
struct Place {
    address: String,
    prefix: String,
}

impl Place {
    fn inputs(&self) -> String {
        format!("{}-words", self.prefix)
    }

    fn outputs(&self) -> String {
        format!("{}-counted", self.prefix)
    }

    fn state(&self) -> Result<KafkaOptions, Error> {
        Ok(KafkaOptions::new(&self.address, format!("{}.state", self.prefix))?.replication_factor(1))
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// A consumer that reads `topic` from `offset` on, whatever its group has read. It commits nothing by itself.
    fn consumer(&self, topic: &str, offset: i64) -> Result<BaseConsumer, Error> {
        let mut config = self.config();
        config
            .set("group.id", &self.prefix)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Offset(offset))?;
        consumer.assign(&assignment)?;
        Ok(consumer)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match &arguments[..] {
        [worker, address, prefix, directory] if worker == "worker" => {
            work(&Place { address: address.clone(), prefix: prefix.clone() }, Path::new(directory))
        }
        [address] => supervise(&Place { address: address.clone(), prefix: format!("words{}", std::process::id()) }),
        _ => Err("say where a Kafka broker is, for example localhost:9092".into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts from where the last commit ended to the end of the topic.
fn work(place: &Place, directory: &Path) -> Result<(), Error> {
    let restore = Restore::new(KafkaSource::open(place.state()?)).into(directory).reuse(true);
    let state = place.state()?;
    let mut task = Task::open(restore, || KafkaSink::open(state), TaskOptions::new())?;
    let counts = task.store("counts", Default::default())?;
    let mut next = match task.inputs().get("words") {
        Some(offset) => String::from_utf8_lossy(offset).parse()?,
        None => 0i64,
    };
    let consumer = place.consumer(&place.inputs(), next)?;
    let (_, end) = consumer.fetch_watermarks(&place.inputs(), 0, TIMEOUT)?;
    while next < end {
        for _ in 0..COMMIT {
            let Some(message) = consumer.poll(TIMEOUT) else { return Err("no answer".into()) };
            let message = message?;
            let word = message.payload().unwrap_or_default();
            let count = counts.get(word)?.map_or(Ok(0), |count| String::from_utf8_lossy(&count).parse::<u64>())? + 1;
            counts.put(word, count.to_string().as_bytes())?;
            task.sink().produce(&place.outputs(), Some(0), Some(word), Some(count.to_string().as_bytes()));
            next = message.offset() + 1;
            if next == end {
                break;
            }
        }
        let mut read = TopicPartitionList::new();
        read.add_partition_offset(&place.inputs(), 0, Offset::Offset(next))?;
        let inputs = Inputs::from([("words".to_owned(), next.to_string().as_str().into())]);
        task.commit_with(inputs, |sink| sink.send_offsets(&consumer, read))?;
    }
    Ok(())
}

fn supervise(place: &Place) -> Result<(), Error> {
    prepare(place)?;
    let scratch = std::env::temp_dir().join(&place.prefix);
    let local = scratch.join("local");
    let (began, mut kills) = (Instant::now(), 0u32);
    loop {
        let mut worker = Command::new(std::env::current_exe()?)
            .args(["worker", &place.address, &place.prefix])
            .arg(&local)
            .spawn()?;
        // Longer and longer, so that it gets somewhere on any machine.
        let patience = Duration::from_millis(300 + 170 * u64::from(kills));
        let deadline = Instant::now() + patience;
        let ended = loop {
            match worker.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        match ended {
            Some(status) if status.success() => break,
            Some(status) => return Err(format!("the worker failed: {status}").into()),
            None => {
                worker.kill()?;
                worker.wait()?;
                kills += 1;
            }
        }
    }
    println!("{INPUTS} words counted in {:?}, the worker was killed {kills} times", began.elapsed());
    // The machine is lost.
    std::fs::remove_dir_all(&local)?;
    check(place, &local)?;
    let _ = std::fs::remove_dir_all(scratch);
    Ok(())
}

/// Makes the topics and writes what is to be counted.
fn prepare(place: &Place) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> = place.config().create()?;
    let (inputs, outputs) = (place.inputs(), place.outputs());
    let topics = [&inputs, &outputs].map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    for made in futures_executor::block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
        made.map_err(|(topic, code)| format!("making {topic}: {code}"))?;
    }
    let producer: ThreadedProducer<DefaultProducerContext> = place.config().create()?;
    for n in 0..INPUTS {
        let mut record = BaseRecord::<[u8], [u8]>::to(&inputs).payload(WORDS[n % WORDS.len()].as_bytes()).partition(0);
        let deadline = Instant::now() + TIMEOUT;
        // The client library's queue is full now and then.
        while let Err((error, refused)) = producer.send(record) {
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            record = refused;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    producer.flush(TIMEOUT)?;
    Ok(())
}

/// What Kafka alone tells: the state, what was put out, and how far the group has read.
fn check(place: &Place, directory: &Path) -> Result<(), Error> {
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    (0..INPUTS).for_each(|n| *expected.entry(WORDS[n % WORDS.len()].to_owned()).or_default() += 1);
    let (db, _) = Restore::new(KafkaSource::open(place.state()?)).into(directory).run()?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for entry in db.keyspace("counts", Default::default())?.iter() {
        let (word, count) = entry?;
        counts.insert(String::from_utf8_lossy(&word).into_owned(), String::from_utf8_lossy(&count).parse()?);
    }
    assert_eq!(counts, expected, "each word counts once");

    let consumer = place.consumer(&place.outputs(), 0)?;
    let mut put_out: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..INPUTS {
        let Some(message) = consumer.poll(TIMEOUT) else { return Err("outputs are missing".into()) };
        let message = message?;
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let (word, count) = (text(message.key()), text(message.payload()));
        let before = put_out.entry(word).or_default();
        assert_eq!(count.parse::<u64>()?, *before + 1, "each count is put out once");
        *before += 1;
    }
    assert_eq!(put_out, expected);

    let mut group = TopicPartitionList::new();
    group.add_partition(&place.inputs(), 0);
    let read = consumer.committed_offsets(group, TIMEOUT)?;
    let offset = read.find_partition(&place.inputs(), 0).map(|partition| partition.offset());
    assert_eq!(offset, Some(Offset::Offset(INPUTS as i64)), "the group has read everything");
    println!("{counts:?}, also what was put out");
    Ok(())
}
