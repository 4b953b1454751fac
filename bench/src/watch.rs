//! Watches from outside how far a consumer group is: the same measure for a
//! stage and for a bare program.

use std::process::Child;
use std::time::{Duration, Instant};

use drover_tests::process::Process;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::bench::Result;
use crate::usage::Usage;

/// A process that is watched.
pub trait Watched {
    /// Its process id.
    fn pid(&self) -> u32;
    /// Why it ended, if it has ended in another way than well.
    fn failed(&mut self) -> Option<String>;
}

impl Watched for Child {
    fn pid(&self) -> u32 {
        self.id()
    }

    fn failed(&mut self) -> Option<String> {
        let status = self.try_wait().ok().flatten()?;
        (!status.success()).then(|| status.to_string())
    }
}

impl Watched for Process {
    fn pid(&self) -> u32 {
        Process::pid(self).as_raw().unsigned_abs()
    }

    fn failed(&mut self) -> Option<String> {
        self.ended()
            .map(|status| format!("{status}\n{}", self.log_tail()))
    }
}

/// How fast a group went through a topic, and what its process used.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Records a second, from the first commit to the last.
    pub rate: f64,
    /// CPU seconds a million records, over the same time.
    pub cpu: f64,
    /// The most memory it ever had, in bytes.
    pub peak: u64,
    /// From the first commit to the last.
    pub took: Duration,
}

/// A group's way through a topic.
pub struct Watch {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

impl Watch {
    /// Of that group in the partitions 0 to `partitions` of that topic.
    pub fn new(brokers: &str, group: &str, topic: &str, partitions: i32) -> Result<Watch> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            // What is committed now, and not what pending transactions will make of it.
            .set("isolation.level", "read_uncommitted")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        Ok(Watch { consumer, list })
    }

    /// How many records the group has committed.
    pub fn committed(&self) -> Result<u64> {
        let answer = self
            .consumer
            .committed_offsets(self.list.clone(), Duration::from_secs(10))?;
        Ok(answer
            .elements()
            .iter()
            .filter_map(|elem| elem.offset().to_raw())
            .filter(|offset| *offset > 0)
            .sum::<i64>() as u64)
    }

    /// Waits until the group has committed `end`, and says how fast it was from
    /// its first commit on: start-up and joining the group are another figure.
    pub fn pace(&self, process: &mut impl Watched, end: u64, limit: Duration) -> Result<Pace> {
        let deadline = Instant::now() + limit;
        let mut first: Option<(Instant, u64, f64)> = None;
        let mut usage = None;
        loop {
            let committed = self.committed()?;
            let now = Instant::now();
            // A bare program ends by itself; then its last usage counts.
            usage = Usage::of(process.pid()).or(usage);
            let Some(used) = usage else {
                return Err("the process has gone before it was seen".into());
            };
            match first {
                None if committed > 0 => first = Some((now, committed, used.cpu)),
                Some((since, at, cpu)) if committed >= end => {
                    let (moved, took) = ((committed - at) as f64, now - since);
                    return Ok(Pace {
                        rate: moved / took.as_secs_f64(),
                        cpu: (used.cpu - cpu) / moved * 1e6,
                        peak: used.peak,
                        took,
                    });
                }
                _ => {}
            }
            if let Some(why) = process.failed() {
                return Err(format!("the process ended: {why}").into());
            }
            if now > deadline {
                return Err(format!("{committed} of {end} within {limit:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
