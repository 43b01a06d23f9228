//! Twenty workers share five licence seats; one of them is killed while it holds one.
//!
//! ```text
//! cargo run --example licence_seats
//! ```
//!
//! Uses the tokend at `TOKEND_URL`, or starts one of its own. Each worker is a process: this
//! program again, with arguments. The end is a check, not an impression: never more than five seats
//! in use, no seat used twice at once (file locks are an independent witness), and the seat of the
//! killed worker came back by itself, neither early nor late. Exits with 1 if any of it is untrue.

mod service;
mod timeline;
mod worker;

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde_json::{Number, json};
use tokend::cli::client::{Client, PolicyFields};
use tokend::token::PoolName;

use crate::service::Service;
use crate::timeline::{Event, Kind, Timeline, micros};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The pool; a left-over of an earlier run is deleted first.
pub const POOL: &str = "licence-seats";
/// A seat comes back by itself this long after its holder was last heard of.
pub const LIFETIME: Duration = Duration::from_secs(3);
const WORKERS: usize = 20;
/// The worker that is killed. It starts first, so that it surely gets a seat.
const UNLUCKY: usize = 1;
/// Whatever happens, this is over by then.
const RUN_MAX: Duration = Duration::from_mins(1);
const SEATS: &str = include_str!("../seats.txt");

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let done = match args.get(1).map(String::as_str) {
        Some("worker") => worker::main(&args[2..]).map(|()| true),
        _ => share(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("licence_seats: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole story; `false` when something was not as promised.
fn share() -> Result<bool> {
    let deadline = Instant::now() + RUN_MAX;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let service = Service::find_or_start(&runtime, deadline)?;
    let client = service.client()?;
    let pool = PoolName::parse(POOL)?;
    let seats: Vec<&str> = SEATS.lines().collect();
    runtime.block_on(prepare(&client, &pool, &seats))?;
    println!(
        "{WORKERS} workers share {} seats at {}\n",
        seats.len(),
        service.url
    );

    let mut crew = Crew::start(&service.url, &service.dir)?;
    let mut timeline = Timeline::new(&seats);
    let finished = crew.watch(&mut timeline, deadline)?;
    if !finished {
        crew.kill_all();
    }
    let failed = crew.end();
    // A tokend that is not ours keeps no trace of us.
    runtime.block_on(client.delete_pool(&pool))?;

    let mut wrong = timeline.check(UNLUCKY);
    if !finished {
        wrong.push(format!("not done within {} s", RUN_MAX.as_secs()));
    }
    wrong.extend(failed);
    for line in &wrong {
        println!("WRONG: {line}");
    }
    Ok(wrong.is_empty())
}

async fn prepare(client: &Client, pool: &PoolName, seats: &[&str]) -> Result<()> {
    // Most often there is none.
    let _ = client.delete_pool(pool).await;
    let policy = PolicyFields {
        lifetime: Some(Number::from(LIFETIME.as_secs())),
        cooldown: Some(Number::from(0)),
        ..PolicyFields::default()
    };
    client.put_pool(pool, &policy).await?;
    let body = json!({ "tokens": seats }).to_string();
    client.import(pool, body).await?;
    Ok(())
}

/// The worker processes and what they report.
struct Crew {
    workers: Vec<Child>,
    events: Receiver<Event>,
}

impl Crew {
    /// Starts the unlucky worker, then, once it has its seat, the others.
    fn start(url: &str, dir: &Path) -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let unlucky = start_worker(UNLUCKY, url, dir, &sender)?;
        let mut crew = Self {
            workers: vec![unlucky],
            events: receiver,
        };
        let first = crew.events.recv_timeout(Duration::from_secs(10))?;
        // Back into the queue: the timeline wants it too.
        sender.send(first)?;
        for number in UNLUCKY + 1..=WORKERS {
            crew.workers.push(start_worker(number, url, dir, &sender)?);
        }
        Ok(crew)
    }

    /// Follows the events until all workers have ended, and kills the unlucky one after it has
    /// kept its lease alive once. `false` when time ran out.
    fn watch(&mut self, timeline: &mut Timeline, deadline: Instant) -> Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.events.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            };
            let kill = event.worker == UNLUCKY && event.kind == Kind::Kept;
            let seat = event.seat.clone();
            timeline.add(event);
            if kill && !timeline.was_killed() {
                let at = micros();
                self.workers[0].kill()?;
                timeline.add(Event {
                    at,
                    worker: UNLUCKY,
                    kind: Kind::Killed,
                    seat,
                });
            }
        }
    }
}

impl Crew {
    fn kill_all(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }

    /// Waits for all; names the workers that did not do all their jobs.
    fn end(mut self) -> Vec<String> {
        let numbered = self.workers.iter_mut().enumerate();
        let failed = numbered.filter_map(|(index, worker)| {
            let number = index + UNLUCKY;
            let done = matches!(worker.wait(), Ok(status) if status.success());
            (!done && number != UNLUCKY).then(|| format!("worker #{number} failed"))
        });
        failed.collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Starts one worker and a thread that turns its output into events. The channel closes when the
/// last worker has closed its output.
fn start_worker(number: usize, url: &str, dir: &Path, events: &Sender<Event>) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["worker", &number.to_string(), url])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no pipe")?;
    let events = events.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output)
            .lines()
            .map_while(std::io::Result::ok)
        {
            if let Some(event) = Event::parse(number, &line) {
                let _ = events.send(event);
            }
        }
    });
    Ok(child)
}
