//! Who may work next: a bounded number of turns, shared fairly between client addresses.
//!
//! Each address has a line of its own, and free turns go to the lines in rotation. So an address that waits with a
//! hundred logins delays the login of another address by one turn, not by a hundred.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::attempts::Site;

/// Too many wait, or the turn did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct Busy;

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub at_once: usize,
    pub per_site: usize,
    /// Over all addresses. When it is reached, a newcomer takes the last place of the longest line.
    pub in_all: usize,
}

/// Cheap to clone: all clones share the turns.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    waiting: usize,
    lines: HashMap<Site, VecDeque<oneshot::Sender<Turn>>>,
    /// The addresses that have a line; the first one is next.
    rotation: VecDeque<Site>,
}

/// Passed on when dropped.
#[derive(Debug)]
pub(super) struct Turn(Option<Arc<Shared>>);

impl Turns {
    pub fn new(bounds: Bounds) -> Self {
        let state = State {
            free: bounds.at_once,
            ..State::default()
        };
        Self(Arc::new(Shared {
            bounds,
            state: Mutex::new(state),
        }))
    }

    /// A turn, after those that come before it in the rotation.
    pub async fn take(&self, site: Site, within: Duration) -> Result<Turn, Busy> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(self.0.clone())));
            }
            state.join(site, sender, self.0.bounds)?;
        }
        let mut place = Place {
            turns: self,
            site,
            receiver,
        };
        match tokio::time::timeout(within, &mut place.receiver).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Busy),
        }
    }
}

/// A place in a line, left when dropped: the caller may be gone, or have waited long enough.
struct Place<'a> {
    turns: &'a Turns,
    site: Site,
    receiver: oneshot::Receiver<Turn>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        // A turn that came meanwhile is passed on when it is dropped here.
        drop(self.receiver.try_recv());
        self.turns.0.lock().leave(self.site);
    }
}

impl State {
    fn join(
        &mut self,
        site: Site,
        sender: oneshot::Sender<Turn>,
        bounds: Bounds,
    ) -> Result<(), Busy> {
        let length = self.lines.get(&site).map_or(0, VecDeque::len);
        if length >= bounds.per_site {
            return Err(Busy);
        }
        if self.waiting >= bounds.in_all {
            self.shorten_longest(length + 1)?;
        }
        self.waiting += 1;
        let line = self.lines.entry(site).or_default();
        if line.is_empty() {
            self.rotation.push_back(site);
        }
        line.push_back(sender);
        Ok(())
    }

    /// Sends away the last of the longest line, unless that one is no longer than the newcomer's would be.
    fn shorten_longest(&mut self, than: usize) -> Result<(), Busy> {
        let longest = self.lines.iter_mut().max_by_key(|(_, line)| line.len());
        let (_, line) = longest.filter(|(_, line)| line.len() > than).ok_or(Busy)?;
        line.pop_back();
        self.waiting -= 1;
        Ok(())
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let site = self.rotation.pop_front()?;
        let line = self.lines.get_mut(&site)?;
        let next = line.pop_front()?;
        self.waiting -= 1;
        if line.is_empty() {
            self.lines.remove(&site);
        } else {
            self.rotation.push_back(site);
        }
        Some(next)
    }

    /// Takes those out of a line who do not wait any more.
    fn leave(&mut self, site: Site) {
        let Some(line) = self.lines.get_mut(&site) else {
            return;
        };
        let before = line.len();
        line.retain(|sender| !sender.is_closed());
        self.waiting -= before - line.len();
        if line.is_empty() {
            self.lines.remove(&site);
            self.rotation.retain(|other| *other != site);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next in the rotation; where nobody waits, the turn becomes free.
    fn next_or_free(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.lock();
        let next = state.next();
        state.free += usize::from(next.is_none());
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else {
            return;
        };
        while let Some(next) = shared.next_or_free() {
            match next.send(Self(Some(shared.clone()))) {
                Ok(()) => return,
                // Gone meanwhile. The turn goes on to the next, and not by its own drop.
                Err(mut refused) => refused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn site(number: u8) -> Site {
        IpAddr::from([192, 0, 2, number]).into()
    }

    fn turns(at_once: usize, per_site: usize, in_all: usize) -> Turns {
        Turns::new(Bounds {
            at_once,
            per_site,
            in_all,
        })
    }

    async fn take(turns: &Turns, number: u8) -> Result<Turn, Busy> {
        turns.take(site(number), LONG).await
    }

    /// Whether it does not have its answer yet.
    fn waits(future: &mut (impl Future<Output = Result<Turn, Busy>> + Unpin)) -> bool {
        future.now_or_never().is_none()
    }

    fn at_rest(turns: &Turns, free: usize) -> bool {
        let state = turns.0.lock();
        state.free == free
            && state.waiting == 0
            && state.lines.is_empty()
            && state.rotation.is_empty()
    }

    #[tokio::test]
    async fn addresses_take_turns_however_many_logins_each_has() {
        let turns = turns(1, 100, 1_000);
        let first = take(&turns, 9).await.expect("free");
        let order = Mutex::new(Vec::new());
        let logins = [1, 1, 1, 1, 1, 2, 3, 2].map(|number| {
            let (turns, order) = (&turns, &order);
            async move {
                let turn = take(turns, number).await.expect("in time");
                order.lock().expect("whole").push(number);
                drop(turn);
            }
        });
        tokio::join!(biased; join_all(logins), async { drop(first) });
        let order = order.into_inner().expect("whole");
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1, 1]);
        assert!(at_rest(&turns, 1));
    }

    #[tokio::test]
    async fn an_address_has_so_many_places_and_no_more() {
        let turns = turns(1, 2, 100);
        let first = take(&turns, 1).await.expect("free");
        let mut line: Vec<_> = (0..3).map(|_| Box::pin(take(&turns, 1))).collect();
        assert!(waits(&mut line[0]) && waits(&mut line[1]));
        assert!(matches!((&mut line[2]).now_or_never(), Some(Err(Busy))));
        let mut other = Box::pin(take(&turns, 2));
        assert!(waits(&mut other), "another has its own");
        drop((first, line, other));
        assert!(at_rest(&turns, 1));
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_last_place_of_the_longest_line() {
        let turns = turns(1, 100, 4);
        let first = take(&turns, 9).await.expect("free");
        let mut flood: Vec<_> = (0..4).map(|_| Box::pin(take(&turns, 1))).collect();
        for wait in &mut flood {
            assert!(waits(wait));
        }
        assert!(matches!(take(&turns, 1).now_or_never(), Some(Err(Busy))));
        let mut others: Vec<_> = [2, 3].map(|number| Box::pin(take(&turns, number))).into();
        for wait in &mut others {
            assert!(waits(wait));
        }
        let told: Vec<_> = flood
            .iter_mut()
            .map(futures_util::FutureExt::now_or_never)
            .collect();
        let busy = told.iter().map(|told| matches!(told, Some(Err(Busy))));
        assert_eq!(busy.collect::<Vec<_>>(), [false, false, true, true]);
        // Lines of 2, 1 and 1: nobody is shortened for one who would have as long a line.
        assert!(matches!(take(&turns, 2).now_or_never(), Some(Err(Busy))));
        drop((first, flood, others));
        assert!(at_rest(&turns, 1));
    }

    #[tokio::test]
    async fn who_is_gone_is_passed_over_and_no_turn_is_lost() {
        let turns = turns(1, 100, 100);
        let first = take(&turns, 9).await.expect("free");
        let mut gone = Box::pin(take(&turns, 1));
        let mut told = Box::pin(take(&turns, 1));
        let mut last = Box::pin(take(&turns, 2));
        for wait in [&mut gone, &mut told, &mut last] {
            assert!(waits(wait));
        }
        drop(gone);
        drop(first);
        // Its turn has come, and it goes without having looked.
        drop(told);
        let turn = last.await.expect("the turn went on");
        drop(turn);
        assert!(at_rest(&turns, 1));
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_in_time_is_not_waited_for() {
        let turns = turns(1, 100, 100);
        let first = take(&turns, 1).await.expect("free");
        let late = turns.take(site(2), Duration::ZERO).await;
        assert!(matches!(late, Err(Busy)));
        drop(first);
        assert!(at_rest(&turns, 1));
    }
}
