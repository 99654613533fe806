//! One at a time, shared by all: the first to ask starts it, the others wait for its result.

#[cfg(all(test, shuttle))]
mod interleavings;

use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use crate::error::Error;
use crate::sync::{Mutex, MutexGuard};

/// Something that is done once for everybody who wants it at the same time.
///
/// Whoever waits may go away at any moment: the flight is not theirs. Its failure is shared like
/// its success, so that a thousand waiters never try one after the other.
pub(crate) struct SingleFlight<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    count: u64,
    under_way: Option<Flight<T>>,
}

struct Flight<T> {
    number: u64,
    epoch: u64,
    /// Of the tokens that it is to replace, where there are any.
    generation: u64,
    sender: watch::Sender<Answer<T>>,
}

type Answer<T> = Option<Result<T, Error>>;

/// What asking for a flight came to.
#[must_use]
pub(crate) enum Joined<A, T> {
    /// No flight was needed.
    Already(A),
    Waiting(Waiter<T>),
}

impl<T: Clone> SingleFlight<T> {
    pub(crate) fn new() -> Self {
        let slot = Slot { count: 0, under_way: None };
        Self(Arc::new(Mutex::new(slot)))
    }

    /// Joins the flight of that epoch that is under way, or starts one for that generation in it.
    /// `look_again` is asked first, while no flight can begin or end: its answer makes one needless.
    pub(crate) fn join<A>(
        &self,
        (epoch, generation): (u64, u64),
        look_again: impl FnOnce() -> Option<A>,
        start: impl FnOnce(Landing<T>),
    ) -> Joined<A, T> {
        let mut slot = lock(&self.0);
        if let Some(answer) = look_again() {
            return Joined::Already(answer);
        }
        if let Some(flight) = slot.under_way.as_ref().filter(|flight| flight.epoch == epoch) {
            return Joined::Waiting(Waiter(flight.sender.subscribe()));
        }
        let (sender, receiver) = watch::channel(None);
        slot.count += 1;
        let number = slot.count;
        let earlier = slot.under_way.replace(Flight { number, epoch, generation, sender });
        drop(slot);
        if let Some(flight) = earlier {
            flight.sender.send_replace(Some(Err(Error::logged_out(None))));
        }
        start(Landing { slot: Arc::clone(&self.0), number });
        Joined::Waiting(Waiter(receiver))
    }

    /// As [`join`](Self::join), one flight after the other until one brings what is `new`: the one
    /// that was under way may have begun before it was needed.
    pub(crate) async fn fly(
        &self,
        version: (u64, u64),
        look_again: impl Fn() -> Option<Result<T, Error>>,
        start: impl Fn(Landing<T>),
        is_new: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        loop {
            let brought = match self.join(version, &look_again, &start) {
                Joined::Already(brought) => brought?,
                Joined::Waiting(flight) => flight.wait().await?,
            };
            if is_new(&brought) {
                return Ok(brought);
            }
        }
    }

    /// Joins the flight of `epoch`, if it is under way.
    pub(crate) fn under_way(&self, epoch: u64) -> Option<Waiter<T>> {
        let slot = lock(&self.0);
        let flight = slot.under_way.as_ref().filter(|flight| flight.epoch == epoch)?;
        Some(Waiter(flight.sender.subscribe()))
    }

    /// Joins the flight of that epoch that is under way, if it was started for an earlier generation:
    /// it may be landing with just these tokens.
    pub(crate) fn under_way_before(&self, (epoch, generation): (u64, u64)) -> Option<Waiter<T>> {
        let slot = lock(&self.0);
        let flight = slot.under_way.as_ref().filter(|flight| flight.epoch == epoch)?;
        (flight.generation < generation).then(|| Waiter(flight.sender.subscribe()))
    }

    /// Answers everybody who waits for a flight from before `epoch`. What was started goes on by
    /// itself, unheard.
    pub(crate) fn abandon_before(&self, epoch: u64, error: Error) {
        let over = lock(&self.0).under_way.take_if(|flight| flight.epoch < epoch);
        if let Some(flight) = over {
            flight.sender.send_replace(Some(Err(error)));
        }
    }
}

/// A seat on a flight. Dropping it changes nothing for the others.
pub(crate) struct Waiter<T>(watch::Receiver<Answer<T>>);

impl<T: Clone> Waiter<T> {
    pub(crate) async fn wait(mut self) -> Result<T, Error> {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(lost()),
        }
    }
}

/// The duty to answer those who wait. Dropped without a result, it answers with an error.
pub(crate) struct Landing<T> {
    slot: Arc<Mutex<Slot<T>>>,
    number: u64,
}

impl<T> Landing<T> {
    /// How many wait for it now.
    pub(crate) fn waiters(&self) -> usize {
        let slot = lock(&self.slot);
        let ours = slot.under_way.as_ref().filter(|flight| flight.number == self.number);
        ours.map_or(0, |flight| flight.sender.receiver_count())
    }

    /// Ends the flight. From here on, who asks looks again or starts another.
    pub(crate) fn land(self, result: Result<T, Error>) {
        self.answer(result);
    }

    fn answer(&self, result: Result<T, Error>) {
        let mut slot = lock(&self.slot);
        // Not ours: it was abandoned, and another may be under way.
        let ours = slot.under_way.take_if(|flight| flight.number == self.number);
        drop(slot);
        if let Some(flight) = ours {
            flight.sender.send_replace(Some(result));
        }
    }
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.answer(Err(lost()));
    }
}

fn lost() -> Error {
    Error::internal("the session was closed", None)
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_shares_one_result_and_the_next_starts_anew() {
        let flights = SingleFlight::<u32>::new();
        let mut landings = Vec::new();
        let mut waiters = Vec::new();
        for _ in 0..100 {
            let Joined::Waiting(waiter) = flights.join((0, 0), || None::<()>, |l| landings.push(l))
            else {
                unreachable!("nothing makes it needless");
            };
            waiters.push(waiter);
        }
        assert_eq!(landings.len(), 1);
        landings.remove(0).land(Ok(7));
        for waiter in waiters {
            assert_eq!(waiter.wait().await.unwrap(), 7);
        }
        let _second = flights.join((0, 0), || None::<()>, |l| landings.push(l));
        assert_eq!(landings.len(), 1);
    }

    #[tokio::test]
    async fn a_flight_that_is_dropped_answers_with_an_error() {
        let flights = SingleFlight::<u32>::new();
        let Joined::Waiting(waiter) = flights.join((0, 0), || None::<()>, drop) else {
            unreachable!("nothing makes it needless");
        };
        assert_eq!(waiter.wait().await.unwrap_err().to_string(), "the session was closed");
        assert!(flights.under_way(0).is_none());
    }

    #[tokio::test]
    async fn an_abandoned_flight_lands_unheard_beside_its_successor() {
        let flights = SingleFlight::<u32>::new();
        let mut landings = Vec::new();
        let Joined::Waiting(first) = flights.join((0, 0), || None::<()>, |l| landings.push(l))
        else {
            unreachable!("nothing makes it needless");
        };
        flights.abandon_before(1, Error::logged_out(None));
        assert!(first.wait().await.unwrap_err().is_logged_out());
        let Joined::Waiting(second) = flights.join((1, 0), || None::<()>, |l| landings.push(l))
        else {
            unreachable!("nothing makes it needless");
        };
        flights.abandon_before(1, Error::logged_out(None));
        landings.remove(0).land(Ok(1));
        landings.remove(0).land(Ok(2));
        assert_eq!(second.wait().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_flight_of_a_later_login_takes_the_place_of_an_earlier_ones() {
        let flights = SingleFlight::<u32>::new();
        let mut landings = Vec::new();
        let Joined::Waiting(first) = flights.join((0, 0), || None::<()>, |l| landings.push(l))
        else {
            unreachable!("nothing makes it needless");
        };
        let Joined::Waiting(second) = flights.join((1, 0), || None::<()>, |l| landings.push(l))
        else {
            unreachable!("nothing makes it needless");
        };
        assert!(first.wait().await.unwrap_err().is_logged_out());
        assert!(flights.under_way(0).is_none() && flights.under_way(1).is_some());
        landings.remove(0).land(Ok(1));
        landings.remove(0).land(Ok(2));
        assert_eq!(second.wait().await.unwrap(), 2);
    }
}
