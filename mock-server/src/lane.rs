//! What a test has in store for one route, along with what was seen on it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::fault::Fault;
use crate::hold::Gate;
use crate::route::Recorded;

#[derive(Default)]
pub(crate) struct Lane {
    faults: VecDeque<(usize, Fault)>,
    holds: Vec<Arc<Gate>>,
    answer_holds: Vec<Arc<Gate>>,
    barriers: VecDeque<(usize, Arc<Gate>)>,
    pub(crate) recorded: VecDeque<Recorded>,
    /// How many recordings were dropped from the front.
    forgotten: usize,
}

impl Lane {
    pub(crate) fn push_fault(&mut self, count: usize, fault: Fault) {
        if count > 0 {
            self.faults.push_back((count, fault));
        }
    }

    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        let (left, fault) = self.faults.front_mut()?;
        *left -= 1;
        if *left > 0 {
            return Some(fault.clone());
        }
        self.faults.pop_front().map(|(_, fault)| fault)
    }

    pub(crate) fn push_hold(&mut self, gate: Arc<Gate>) {
        self.holds.push(gate);
    }

    pub(crate) fn push_answer_hold(&mut self, gate: Arc<Gate>) {
        self.answer_holds.push(gate);
    }

    pub(crate) fn holds(&mut self) -> Vec<Arc<Gate>> {
        still_closed(&mut self.holds)
    }

    pub(crate) fn answer_holds(&mut self) -> Vec<Arc<Gate>> {
        still_closed(&mut self.answer_holds)
    }

    pub(crate) fn push_barrier(&mut self, count: usize) {
        if count > 0 {
            self.barriers.push_back((count, Gate::barrier(count)));
        }
    }

    pub(crate) fn take_barrier(&mut self) -> Option<Arc<Gate>> {
        let (left, gate) = self.barriers.front_mut()?;
        *left -= 1;
        let (left, gate) = (*left, gate.clone());
        if left == 0 {
            self.barriers.pop_front();
        }
        Some(gate)
    }

    /// Returns what [`Lane::answered`] wants to know.
    pub(crate) fn record(&mut self, request: Recorded) -> usize {
        if self.recorded.len() == KEPT {
            self.recorded.pop_front();
            self.forgotten += 1;
        }
        self.recorded.push_back(request);
        self.forgotten + self.recorded.len() - 1
    }

    pub(crate) fn answered(&mut self, record: usize, status: u16) {
        let index = record.checked_sub(self.forgotten);
        if let Some(request) = index.and_then(|index| self.recorded.get_mut(index)) {
            request.status = Some(status);
        }
    }
}

fn still_closed(gates: &mut Vec<Arc<Gate>>) -> Vec<Arc<Gate>> {
    gates.retain(|gate| !gate.is_open());
    gates.clone()
}

/// More than a test looks at, and little enough for a command that runs for days.
const KEPT: usize = 10_000;
