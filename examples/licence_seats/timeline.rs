//! What the workers did, as a table while it happens and as a verdict at the end.

use std::time::Duration;

/// After its lease's end the killed worker's seat has to be in use again within this: sweep, an
/// asking worker's pause, and a busy machine.
const LATE_MAX: Duration = Duration::from_secs(2);
const MICROS_PER_SECOND: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Took,
    Kept,
    Gave,
    /// Took a seat whose file lock somebody else still has.
    Conflict,
    Killed,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Took,
        Self::Kept,
        Self::Gave,
        Self::Conflict,
        Self::Killed,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Took => "takes",
            Self::Kept => "keeps",
            Self::Gave => "gives-back",
            Self::Conflict => "CONFLICTS-ON",
            Self::Killed => "is-KILLED-holding",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Event {
    /// Microseconds of the machine's clock, the same for all processes.
    pub at: u64,
    pub worker: usize,
    pub kind: Kind,
    pub seat: String,
}

impl Event {
    /// From a worker's line: `MICROS WORD SEAT`.
    pub fn parse(worker: usize, line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (at, word, seat) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            at: at.parse().ok()?,
            worker,
            kind: Kind::ALL.into_iter().find(|kind| kind.word() == word)?,
            seat: seat.to_owned(),
        })
    }
}

/// Now, by a clock that all processes of this machine share and that nobody sets.
pub fn micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * MICROS_PER_SECOND + part(time.tv_nsec) / 1_000
}

pub struct Timeline {
    start: u64,
    seats: Vec<String>,
    /// Who is in which seat, for the table.
    shown: Vec<Option<usize>>,
    events: Vec<Event>,
}

impl Timeline {
    pub fn new(seats: &[&str]) -> Self {
        let names: Vec<&str> = seats.iter().map(|seat| short(seat)).collect();
        println!("   time  {}", names.join("  "));
        Self {
            start: micros(),
            seats: seats.iter().map(|&seat| seat.to_owned()).collect(),
            shown: vec![None; seats.len()],
            events: Vec::new(),
        }
    }

    pub fn was_killed(&self) -> bool {
        self.events.iter().any(|event| event.kind == Kind::Killed)
    }

    /// Remembers the event and shows it as a row: who is in which seat now, and why that changed.
    pub fn add(&mut self, event: Event) {
        if let Some(seat) = self.seats.iter().position(|seat| *seat == event.seat) {
            match event.kind {
                Kind::Took | Kind::Conflict => self.shown[seat] = Some(event.worker),
                // Lines of two processes may arrive out of order: never clear another's.
                Kind::Gave if self.shown[seat] == Some(event.worker) => self.shown[seat] = None,
                Kind::Kept | Kind::Gave | Kind::Killed => {}
            }
        }
        let routine = event.kind == Kind::Kept && self.events.iter().any(|e| e.kind == Kind::Kept);
        if !routine {
            let cells = self.shown.iter().map(|worker| match worker {
                Some(worker) => format!("{:<4}", format!("#{worker}")),
                None => "·   ".to_owned(),
            });
            let cells: Vec<String> = cells.collect();
            println!(
                "{:>5.2} s  {}   #{} {} {}",
                seconds(event.at.saturating_sub(self.start)),
                cells.join("  "),
                event.worker,
                event.kind.word().replace('-', " "),
                short(&event.seat),
            );
        }
        self.events.push(event);
    }

    /// Everything that was not as promised; empty is good. Prints what it measured.
    pub fn check(&mut self, unlucky: usize) -> Vec<String> {
        self.events.sort_by_key(|event| event.at);
        let mut wrong = Vec::new();
        let most = self.most_in_use(&mut wrong);
        let took = self.events.iter().filter(|e| e.kind == Kind::Took).count();
        println!(
            "\n{took} jobs; at most {most} of {} seats in use at once",
            self.seats.len()
        );
        if most > self.seats.len() {
            wrong.push(format!("{most} seats in use"));
        }
        match self.reuse(unlucky) {
            Some((killed, expected, reused)) => {
                let late = seconds(reused) - seconds(expected);
                println!(
                    "the killed worker's seat was used again {:.2} s after the kill, {late:+.2} s from the end of its lease",
                    seconds(reused) - seconds(killed),
                );
                if reused < expected {
                    wrong.push("the seat was given away before its lease ended".to_owned());
                }
                if late > LATE_MAX.as_secs_f64() {
                    wrong.push("the seat came back late".to_owned());
                }
            }
            None => wrong.push("the killed worker's seat was not used again".to_owned()),
        }
        wrong
    }

    /// Plays the events in order: how many seats were in use at once; notes double use.
    fn most_in_use(&self, wrong: &mut Vec<String>) -> usize {
        let mut holders: Vec<(&str, usize)> = Vec::new();
        let mut most = 0;
        for event in &self.events {
            match event.kind {
                Kind::Took | Kind::Conflict => {
                    if event.kind == Kind::Conflict {
                        wrong.push(format!("{} was locked by another worker", event.seat));
                    }
                    if let Some((_, other)) = holders.iter().find(|(seat, _)| *seat == event.seat) {
                        wrong.push(format!("{} was in use by #{other}", event.seat));
                    }
                    holders.push((&event.seat, event.worker));
                }
                Kind::Gave | Kind::Killed => holders.retain(|(_, who)| *who != event.worker),
                Kind::Kept => {}
            }
            most = most.max(holders.len());
        }
        most
    }

    /// When the worker was killed, its lease ended at the earliest, and its seat was used again.
    fn reuse(&self, unlucky: usize) -> Option<(u64, u64, u64)> {
        let killed = self.events.iter().find(|e| e.kind == Kind::Killed)?;
        let theirs = self.events.iter().filter(|e| e.worker == unlucky);
        let kept = theirs
            .filter(|e| e.kind == Kind::Kept)
            .map(|e| e.at)
            .max()?;
        let lifetime = u64::try_from(crate::LIFETIME.as_micros()).unwrap_or(u64::MAX);
        let next = self
            .events
            .iter()
            .find(|e| e.at > killed.at && e.kind == Kind::Took && e.seat == killed.seat)?;
        Some((killed.at, kept + lifetime, next.at))
    }
}

/// The last four characters tell the seats apart.
fn short(seat: &str) -> &str {
    seat.get(seat.len().saturating_sub(4)..).unwrap_or(seat)
}

#[allow(clippy::cast_precision_loss)] // For reading only.
fn seconds(micros: u64) -> f64 {
    micros as f64 / MICROS_PER_SECOND as f64
}
