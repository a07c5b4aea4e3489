//! A table that names its entries with ids that are not used again soon: the position in the low
//! 32 bits, the number of times that position was used in the high ones. An answer that comes
//! twice, or late, finds nothing instead of somebody else's entry.

/// See the module.
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    uses: u32,
    value: Option<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds an entry; its id is never 0.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[at as usize];
        slot.uses = slot.uses.wrapping_add(1).max(1);
        slot.value = Some(value);
        (u64::from(slot.uses) << 32) | u64::from(at)
    }

    /// Takes the entry with that id out.
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let at = id as u32;
        let slot = self.slots.get_mut(at as usize)?;
        if u64::from(slot.uses) != id >> 32 {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(at);
        Some(value)
    }

    /// Takes every entry out that `chosen` names.
    pub(crate) fn take_if(&mut self, chosen: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if let Some(value) = slot.value.take_if(|value| chosen(value)) {
                taken.push(value);
                self.free.push(at as u32);
            }
        }
        taken
    }
}
