//! Whose turn it is: the devices that are still to be started, and how many of each
//! group may be away at once.

use std::collections::{BTreeSet, VecDeque};

/// The devices of a run by their numbers in its order, each in a group.
pub(super) struct Places {
    at_most: usize,
    /// The group of each device.
    group_of: Vec<usize>,
    /// The devices of each group that are to be started, in their order.
    queues: Vec<VecDeque<usize>>,
    /// How many devices of each group are away.
    away: Vec<usize>,
    /// The devices that are to be started and count as away already.
    placed: BTreeSet<usize>,
    /// The next device of each group that has both a place and a device left.
    next: BTreeSet<usize>,
}

impl Places {
    /// Places for the devices whose groups these are, at most so many of a group at
    /// once. None of them is to be started yet.
    pub(super) fn new(group_of: Vec<usize>, at_most: usize) -> Self {
        let groups = group_of.iter().max().map_or(0, |last| last + 1);
        let queues = vec![VecDeque::new(); groups];
        let (at_most, away) = (at_most.max(1), vec![0; groups]);
        Places { at_most, group_of, queues, away, placed: BTreeSet::new(), next: BTreeSet::new() }
    }

    /// The device is to be started, after those that were queued before.
    pub(super) fn queue(&mut self, device: usize) {
        let Some(queue) = self.group_of.get(device).and_then(|group| self.queues.get_mut(*group)) else {
            return;
        };
        queue.push_back(device);
        self.settle(device);
    }

    /// The device is to be started, after those that were queued before, and counts as
    /// away until then as well.
    pub(super) fn queue_with_place(&mut self, device: usize) {
        self.take(device);
        self.placed.insert(device);
        self.queue(device);
    }

    /// The first device in the run's order of which the group has a place.
    pub(super) fn first(&self) -> Option<usize> {
        self.next.first().copied()
    }

    /// The device is started, or was before: from now on it counts as away.
    pub(super) fn take(&mut self, device: usize) {
        self.next.remove(&device);
        let Some(group) = self.group_of.get(device).copied() else { return };
        if let Some(queue) = self.queues.get_mut(group)
            && queue.front() == Some(&device)
        {
            queue.pop_front();
        }
        if !self.placed.remove(&device)
            && let Some(away) = self.away.get_mut(group)
        {
            *away += 1;
        }
        self.settle(device);
    }

    /// The device is back.
    pub(super) fn release(&mut self, device: usize) {
        let away = self.group_of.get(device).and_then(|group| self.away.get_mut(*group));
        if let Some(away) = away {
            *away = away.saturating_sub(1);
        }
        self.settle(device);
    }

    /// How many devices have no place since others of their groups are away.
    pub(super) fn held(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Brings `next` in line with what is known of the device's group.
    fn settle(&mut self, device: usize) {
        let Some(group) = self.group_of.get(device).copied() else { return };
        let front = self.queues.get(group).and_then(|queue| queue.front().copied());
        let has_place = self.away.get(group).is_some_and(|away| *away < self.at_most);
        match front {
            Some(front) if has_place || self.placed.contains(&front) => drop(self.next.insert(front)),
            Some(front) => drop(self.next.remove(&front)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gets_no_more_places_than_it_has() {
        let mut places = Places::new(vec![0, 0, 1, 0, 1], 1);
        assert_eq!(places.first(), None);
        (0..5).for_each(|device| places.queue(device));
        assert_eq!(places.first(), Some(0));
        places.take(0);
        assert_eq!(places.first(), Some(2), "1 is of the same group as 0");
        places.take(2);
        assert_eq!((places.first(), places.held()), (None, 3));
        places.release(2);
        assert_eq!(places.first(), Some(4));
        places.take(4);
        places.release(0);
        assert_eq!(places.first(), Some(1));
        places.take(1);
        assert_eq!((places.first(), places.held()), (None, 1), "3 has to wait for 1");
    }

    #[test]
    fn who_was_away_before_takes_a_place() {
        let mut places = Places::new(vec![0, 0, 0], 1);
        (1..3).for_each(|device| places.queue(device));
        places.take(0);
        assert_eq!(places.first(), None);
        places.release(0);
        assert_eq!(places.first(), Some(1));
    }

    #[test]
    fn who_has_a_place_already_needs_no_other() {
        let mut places = Places::new(vec![0, 0, 0, 0], 1);
        places.queue_with_place(2);
        places.queue_with_place(3);
        places.queue(0);
        assert_eq!(places.first(), Some(2));
        places.take(2);
        assert_eq!(places.first(), Some(3));
        places.take(3);
        places.release(2);
        assert_eq!(places.first(), None, "3 is away yet");
        places.release(3);
        assert_eq!((places.first(), places.held()), (Some(0), 1));
    }

    #[test]
    fn without_a_limit_all_go_in_their_order() {
        let mut places = Places::new(vec![0; 100], usize::MAX);
        (0..100).for_each(|device| places.queue(device));
        for device in 0..100 {
            assert_eq!(places.first(), Some(device));
            places.take(device);
        }
        assert_eq!((places.first(), places.held()), (None, 0));
    }
}
