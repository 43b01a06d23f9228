//! Calls that replicas confirm: `WAIT`.
//!
//! WAIT counts only what its own connection wrote, and holds up all that stands behind it there. So these calls
//! have a connection of their own, and one cycle runs on it at a time: all scripts that queued, then one WAIT.

use std::sync::{Arc, Mutex, PoisonError};

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A script's answer, and whether enough replicas have confirmed what it wrote.
pub(super) type Confirmed = Result<(Value, bool), Error>;

struct Waiting {
    hash: String,
    keys: Vec<String>,
    args: Vec<Value>,
    answer: oneshot::Sender<Confirmed>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Whether a task is sending. It ends only with an empty queue, under the lock.
    sending: bool,
}

#[derive(Clone)]
pub(in crate::store) struct Commits {
    client: Client,
    replicas: u32,
    timeout_ms: u64,
    queue: Arc<Mutex<Queue>>,
    /// The runtime that outlives the HTTP workers.
    runtime: Handle,
}

impl Commits {
    pub fn new(client: Client, replicas: u32, timeout_ms: u64) -> Self {
        Self {
            client,
            replicas,
            timeout_ms,
            queue: Arc::default(),
            runtime: Handle::current(),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Calls a script with the next cycle.
    pub async fn evaluate(&self, hash: &str, keys: Vec<String>, args: Vec<Value>) -> Confirmed {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Waiting {
                hash: hash.to_owned(),
                keys,
                args,
                answer,
            });
            !std::mem::replace(&mut queue.sending, true)
        };
        if starts {
            let sending = Sending(self.clone());
            self.runtime
                .spawn(async move { sending.0.send_queued().await });
        }
        answered
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Canceled, "the cycle has ended")))
    }

    async fn send_queued(&self) {
        while let Some(cycle) = self.next_cycle() {
            self.send(cycle).await;
        }
    }

    /// What has queued; `None` once that is nothing, and the task ends.
    fn next_cycle(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.sending = !queue.waiting.is_empty();
        queue.sending.then(|| std::mem::take(&mut queue.waiting))
    }

    async fn send(&self, cycle: Vec<Waiting>) {
        let pipeline = self.client.pipeline();
        let mut answers = Vec::with_capacity(cycle.len());
        for call in cycle {
            let mut args: Vec<Value> = vec![call.hash.into(), count(&call.keys)];
            args.extend(call.keys.into_iter().map(Value::from));
            args.extend(call.args);
            // In a pipeline this only queues.
            let queued = pipeline
                .custom::<Value, _>(fred::cmd!("EVALSHA"), args)
                .await;
            match queued {
                Ok(_) => answers.push(call.answer),
                Err(error) => drop(call.answer.send(Err(error))),
            }
        }
        let wait = vec![self.replicas.to_string(), self.timeout_ms.to_string()];
        let queued = pipeline.custom::<Value, _>(fred::cmd!("WAIT"), wait).await;
        let mut results = pipeline.try_all::<Value>().await;
        let confirmed = match (queued, results.pop()) {
            (Ok(_), Some(Ok(Value::Integer(replicas)))) => replicas >= i64::from(self.replicas),
            // Whatever became of the scripts, nobody has confirmed it.
            _ => false,
        };
        let mut results = results.into_iter();
        for answer in answers {
            let result = results
                .next()
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Canceled, "the pipeline has ended")));
            let _ = answer.send(result.map(|value| (value, confirmed)));
        }
    }
}

fn count(keys: &[String]) -> Value {
    keys.len().to_string().into()
}

/// The task that sends, however it ends: nobody must wait for it after that, and the next call starts another.
struct Sending(Commits);

impl Drop for Sending {
    fn drop(&mut self) {
        // After an orderly end another may be sending by now; then there is nothing of ours here, and theirs is
        // in their own hands.
        if std::thread::panicking() {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.sending = false;
            queue.waiting.clear();
        }
    }
}
