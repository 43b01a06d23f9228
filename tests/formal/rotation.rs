//! A formal model of rotating tokens: an owner whose answers may get lost, outages of any length, a thief who copied the
//! owner's token once, and a logout. It is `lua/exchange.lua` and what the record of a family needs, nothing else.

use stateright::{Model, Property};

use crate::{HOLDS, search};

/// Ticks for which a used token is refused without ending the session.
const GRACE: u8 = 1;
/// Ticks for which a retry gets the same successor.
const RETRY: u8 = 3;
/// Within the grace, a number that is further behind ends the session all the same.
const FORGIVEN: u8 = 2;
const CLOCK_MAX: u8 = 9;
const NUMBER_MAX: u8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Invariant {
    /// A token has one successor, however often it is exchanged.
    OneSuccessor,
    /// An owner from whom nothing was stolen, and who retries in time, keeps the session.
    OwnerStays,
    /// A token whose successor was exchanged gets nothing.
    UsedGetsNothing,
    /// Reuse that no honest retry explains ends the session.
    TheftEndsTheSession,
    /// A session that ended does not come back.
    EndedStaysEnded,
}

/// Each is planted into the script and must be found by the invariant that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// An outage that is longer than the grace makes a thief of the owner.
    RetryEndsWithTheGrace,
    RetryMakesAnotherSuccessor,
    /// The time for retries counts, whether or not the successor was exchanged.
    RetryOfAnyNumber,
    RetryForEver,
    /// Each retry starts the time for retries again.
    RetryRestartsItsTime,
    ReuseEndsNothing,
    ExchangeMakesTheFamilyAgain,
}

const BUGS: [(Bug, Invariant); 7] = [
    (Bug::RetryEndsWithTheGrace, Invariant::OwnerStays),
    (Bug::RetryMakesAnotherSuccessor, Invariant::OneSuccessor),
    (Bug::RetryOfAnyNumber, Invariant::UsedGetsNothing),
    (Bug::RetryForEver, Invariant::TheftEndsTheSession),
    (Bug::RetryRestartsItsTime, Invariant::TheftEndsTheSession),
    (Bug::ReuseEndsNothing, Invariant::TheftEndsTheSession),
    (Bug::ExchangeMakesTheFamilyAgain, Invariant::EndedStaysEnded),
];

/// The current number of a family, and when it became current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Family {
    number: u8,
    since: u8,
}

/// A client: the number that it holds, and since when it waits for the answer to its refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    number: u8,
    unanswered_since: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Given(u8),
    Spent,
    Reused,
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Owner,
    Thief,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    /// The request runs; its answer arrives, or it is lost.
    Refresh {
        who: Who,
        lost: bool,
    },
    Steal,
    Logout,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    clock: u8,
    /// What Redis has.
    family: Option<Family>,
    /// What must be, by the rules as the documentation states them.
    truth: Option<Family>,
    owner: Client,
    thief: Option<Client>,
    broken: Option<Invariant>,
}

struct Space {
    bug: Option<Bug>,
}

impl Space {
    fn exchange(&self, world: &mut World, number: u8) -> Answer {
        let bug = |it| self.bug == Some(it);
        let Some(family) = &mut world.family else {
            if bug(Bug::ExchangeMakesTheFamilyAgain) {
                let (number, since) = (number + 1, world.clock);
                world.family = Some(Family { number, since });
                return Answer::Given(number);
            }
            return Answer::Absent;
        };
        let age = world.clock - family.since;
        let behind = family.number - number;
        let retry = if bug(Bug::RetryEndsWithTheGrace) {
            GRACE
        } else {
            RETRY
        };
        if behind == 0 || (behind == 1 && age <= retry && bug(Bug::RetryMakesAnotherSuccessor)) {
            (family.number, family.since) = (family.number + 1, world.clock);
            return Answer::Given(family.number);
        }
        let counted = behind == 1 || bug(Bug::RetryOfAnyNumber);
        if counted && (age <= retry || bug(Bug::RetryForEver)) {
            if bug(Bug::RetryRestartsItsTime) {
                family.since = world.clock;
            }
            return Answer::Given(family.number);
        }
        if bug(Bug::ReuseEndsNothing) || (age <= GRACE && behind <= FORGIVEN) {
            return Answer::Spent;
        }
        world.family = None;
        Answer::Reused
    }

    fn refresh(&self, world: &mut World, who: Who, lost: bool) {
        let client = *world.client(who);
        let answer = self.exchange(world, client.number);
        world.broken = world.judge(client, answer);
        let clock = world.clock;
        let client = world.client(who);
        if lost {
            client.unanswered_since.get_or_insert(clock);
        } else {
            client.unanswered_since = None;
            if let Answer::Given(number) = answer {
                client.number = number;
            }
        }
    }
}

impl World {
    fn client(&mut self, who: Who) -> &mut Client {
        match who {
            Who::Owner => &mut self.owner,
            Who::Thief => self.thief.as_mut().expect("only asked where there is one"),
        }
    }

    /// What an answer breaks; what must be follows it.
    fn judge(&mut self, client: Client, answer: Answer) -> Option<Invariant> {
        let given = matches!(answer, Answer::Given(_));
        let Some(truth) = self.truth else {
            return given.then_some(Invariant::EndedStaysEnded);
        };
        let (behind, age) = (truth.number - client.number, self.clock - truth.since);
        let in_time = client
            .unanswered_since
            .is_none_or(|since| self.clock - since <= RETRY);
        let theft = match behind {
            0 => false,
            1 => age > RETRY,
            _ => age > GRACE || behind > FORGIVEN,
        };
        let successor = client.number + 1;
        if behind == 0 {
            let (number, since) = (successor, self.clock);
            self.truth = Some(Family { number, since });
        } else if theft {
            self.truth = None;
        }
        match answer {
            Answer::Given(_) if behind > 1 => Some(Invariant::UsedGetsNothing),
            Answer::Given(number) if number != successor => Some(Invariant::OneSuccessor),
            _ if theft && answer != Answer::Reused => Some(Invariant::TheftEndsTheSession),
            _ if !given && self.thief.is_none() && in_time => Some(Invariant::OwnerStays),
            _ => None,
        }
    }
}

impl Model for Space {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let family = Some(Family {
            number: 1,
            since: 0,
        });
        let owner = Client {
            number: 1,
            unanswered_since: None,
        };
        vec![World {
            clock: 0,
            family,
            truth: family,
            owner,
            thief: None,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.clock < CLOCK_MAX {
            actions.push(Action::Tick);
        }
        let number = world.family.map_or(0, |family| family.number);
        for who in [Who::Owner, Who::Thief] {
            let there = who == Who::Owner || world.thief.is_some();
            for lost in [false, true] {
                if there && number < NUMBER_MAX {
                    actions.push(Action::Refresh { who, lost });
                }
            }
        }
        if world.thief.is_none() {
            actions.push(Action::Steal);
        }
        actions.push(Action::Logout);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Tick => next.clock += 1,
            Action::Refresh { who, lost } => self.refresh(&mut next, who, lost),
            Action::Steal => next.thief = Some(next.owner),
            Action::Logout => (next.family, next.truth) = (None, None),
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |_: &Self, world: &World| world.broken.is_none();
        vec![Property::always(HOLDS, holds)]
    }
}

#[test]
fn a_session_survives_lost_answers_and_ends_with_a_theft_that_shows() {
    let (_, broken, path) = search("rotation", Space { bug: None }, |world| world.broken);
    assert_eq!(broken, None, "by {path:#?}");
}

#[test]
fn each_bug_planted_into_rotation_is_found_by_the_invariant_that_it_breaks() {
    for (bug, breaks) in BUGS {
        let space = Space { bug: Some(bug) };
        let (_, broken, path) = search(&format!("{bug:?}"), space, |world| world.broken);
        assert_eq!(broken, Some(breaks), "{bug:?}: {path:#?}");
    }
}
