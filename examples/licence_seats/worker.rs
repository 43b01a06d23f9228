//! One worker: a few jobs, each under a lease of a seat.
//!
//! Says what it does on stdout, a line for each [`Kind`]. It claims no more than it knows: a seat
//! counts as taken once the answer is here, and as given back before the request goes out.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tokend::cli::client::{AssignRequest, Client, REQUEST_TIMEOUT, TokenRequest, parse_url};
use tokend::cli::error::{CallError, slug};
use tokend::token::PoolName;

use crate::timeline::{Kind, micros};
use crate::{LIFETIME, POOL, Result, UNLUCKY};

const JOBS: u64 = 3;
/// Jobs take from this to about 1.6 s, so that some need a keep-alive and some do not.
const JOB_MIN: Duration = Duration::from_millis(500);
/// Longer than the unlucky worker lives.
const ENDLESS: Duration = Duration::from_secs(50);
/// Between two tries for a seat. The service's hint is when the next seat comes back at the
/// latest; colleagues give theirs back sooner, and for twenty workers asking is cheap.
const RETRY: Duration = Duration::from_millis(100);

/// `worker NUMBER URL DIR`
pub fn main(args: &[String]) -> Result<()> {
    let [number, url, dir] = args else {
        return Err("worker NUMBER URL DIR".into());
    };
    let worker = Worker {
        number: number.parse()?,
        client: Client::new(parse_url(url)?).map_err(|failure| failure.message)?,
        pool: PoolName::parse(POOL)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for job in 0..JOBS {
            worker.job(job, Path::new(dir)).await?;
        }
        Ok(())
    })
}

struct Worker {
    number: usize,
    client: Client,
    pool: PoolName,
}

impl Worker {
    async fn job(&self, job: u64, dir: &Path) -> Result<()> {
        let lease = self.take().await?;
        let seat = &lease.token;
        // The witness knows nothing of leases: the kernel frees a lock when its process dies.
        let lock = File::create(dir.join(format!("{seat}.lock")))?;
        let kind = match lock.try_lock() {
            Ok(()) => Kind::Took,
            Err(_) => Kind::Conflict,
        };
        report(kind, seat, micros());
        self.work(&lease, self.length(job)).await?;
        report(Kind::Gave, seat, micros());
        drop(lock);
        self.client.unblock(&self.pool, &lease).await?;
        Ok(())
    }

    /// Asks until there is a seat.
    async fn take(&self) -> Result<TokenRequest> {
        let request = AssignRequest {
            holder: Some(format!("worker-{}", self.number)),
            ..AssignRequest::default()
        };
        loop {
            match self.client.assign(&self.pool, &request, None).await {
                Ok(answer) => {
                    return Ok(TokenRequest {
                        fence: Some(answer.value.fence),
                        ..TokenRequest::plain(answer.value.token)
                    });
                }
                Err(CallError::Refused(problem)) if problem.slug() == slug::NO_TOKEN_AVAILABLE => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// "Works", and keeps the lease alive at a third of its length.
    async fn work(&self, lease: &TokenRequest, length: Duration) -> Result<()> {
        let mut left = length;
        while left > LIFETIME / 3 {
            tokio::time::sleep(LIFETIME / 3).await;
            left -= LIFETIME / 3;
            // From before the request: the lease lasts at least a lifetime from here.
            let sent = micros();
            self.client
                .keep_alive(&self.pool, lease, REQUEST_TIMEOUT)
                .await?;
            report(Kind::Kept, &lease.token, sent);
        }
        tokio::time::sleep(left).await;
        Ok(())
    }

    /// Of different lengths, but the same in every run.
    fn length(&self, job: u64) -> Duration {
        if self.number == UNLUCKY {
            return ENDLESS;
        }
        let spread = (self.number as u64 * 7 + job * 5) % 12;
        JOB_MIN + Duration::from_millis(100 * spread)
    }
}

fn report(kind: Kind, seat: &str, at: u64) {
    println!("{at} {} {seat}", kind.word());
}
