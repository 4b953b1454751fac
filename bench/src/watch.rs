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

/// Waits for the end of a bare program that moves so many records, and says how
/// fast it was from its start to its end.
pub fn to_its_end(process: &mut Child, records: u64, limit: Duration) -> Result<Pace> {
    let since = Instant::now();
    let mut usage = None;
    loop {
        usage = Usage::of(process.id()).or(usage);
        if let Some(status) = process.try_wait()? {
            let took = since.elapsed();
            let used = usage.ok_or("the process has gone before it was seen")?;
            if !status.success() {
                return Err(format!("the bare program ended with {status}").into());
            }
            return Ok(Pace {
                rate: records as f64 / took.as_secs_f64(),
                cpu: used.cpu / records as f64 * 1e6,
                peak: used.peak,
                took,
            });
        }
        if since.elapsed() > limit {
            return Err(format!("the bare program did not end within {limit:?}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
        Ok(self.each()?.iter().sum::<i64>() as u64)
    }

    /// The same by partition.
    pub fn each(&self) -> Result<Vec<i64>> {
        let answer = self
            .consumer
            .committed_offsets(self.list.clone(), Duration::from_secs(10))?;
        let offset = |elem: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            elem.offset().to_raw().unwrap_or(0).max(0)
        };
        Ok(answer.elements().iter().map(offset).collect())
    }

    /// The offsets behind the partitions' last records, summed, without markers
    /// of transactions behind them.
    pub fn end(&self) -> Result<u64> {
        let mut sum = 0;
        for elem in self.list.elements() {
            let patience = Duration::from_secs(10);
            let (_, high) =
                self.consumer
                    .fetch_watermarks(elem.topic(), elem.partition(), patience)?;
            sum += high;
        }
        Ok(sum as u64)
    }

    /// Waits until the group has committed `end`, and says how fast it was from
    /// its first commit on: start-up and joining the group are another figure.
    pub fn pace(&self, process: &mut impl Watched, end: u64, limit: Duration) -> Result<Pace> {
        self.pace_from(process, 0, end, limit)
    }

    /// The same for a group that has committed `from` before.
    pub fn pace_from(
        &self,
        process: &mut impl Watched,
        from: u64,
        end: u64,
        limit: Duration,
    ) -> Result<Pace> {
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
                None if committed > from => first = Some((now, committed, used.cpu)),
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
