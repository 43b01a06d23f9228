//! Programs that tests start, whose log is kept, and that end with their test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, http_client, signal};

/// Longest that a process may take to end before the test gives up: no timing assertion.
const END_TIME_MAX: Duration = Duration::from_secs(40);

/// A process whose stderr is kept. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("unpoisoned").push(line);
            }
        });
        Self { child, log }
    }

    /// What it has said on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("unpoisoned").clone()
    }

    /// Waits for what can be seen in its log or asked elsewhere, and panics, showing its log, if it ends before.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut ask: impl AsyncFnMut(&[String]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = ask(&self.log()).await {
                return value;
            }
            let (ended, late) = (self.ended(), Instant::now() > until);
            assert!(
                ended.is_none() && !late,
                "never happened: {what}; ended: {ended:?}; {:#?}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it answers this with 200.
    pub async fn until_ok(&mut self, url: &str) {
        let http = http_client();
        let asked = || {
            http.get(url)
                .header("connection", "close")
                .timeout(PATIENCE)
        };
        self.until(url, async |_| {
            let answer = asked().send().await;
            answer.ok().filter(|answer| answer.status() == 200)
        })
        .await;
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    pub async fn until_ended(&mut self) -> ExitStatus {
        wait(&mut self.child).await
    }

    /// Waits for its end, which must be a good one.
    pub async fn until_ended_well(&mut self) {
        let ended = self.until_ended().await;
        assert_eq!(ended.code(), Some(0), "{:#?}", self.log());
    }

    /// Ends it in order, with this signal.
    pub async fn stop(&mut self, name: &str) {
        self.signal(name);
        self.until_ended_well().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end, and fails the test if it never comes.
pub async fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + END_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        assert!(Instant::now() < until, "the process never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
