//! TinyLFU's memory of frequencies: a count-min sketch of four-bit counters with minimal increment, a doorkeeper that holds
//! what was seen once, and ageing by halving.

use super::mix;

const ROWS: usize = 4;
const MOST: u8 = 15;
/// Uses between two halvings, for each key that the cache holds.
const SAMPLE: usize = 10;

pub(super) struct TinyLfu {
    mask: u64,
    rows: [Vec<u8>; ROWS],
    doorkeeper: Vec<bool>,
    counted: usize,
    sample: usize,
}

impl TinyLfu {
    pub(super) fn new(capacity: usize) -> Self {
        let width = (capacity * SAMPLE).next_power_of_two();
        TinyLfu {
            mask: width as u64 - 1,
            rows: std::array::from_fn(|_| vec![0; width]),
            doorkeeper: vec![false; width * ROWS],
            counted: 0,
            sample: capacity * SAMPLE,
        }
    }

    pub(super) fn count(&mut self, key: u64) {
        if self.enter(key) {
            let least = self.least(key);
            if least < MOST {
                for (row, place) in self.rows.iter_mut().zip(places(key, self.mask)) {
                    row[place] = row[place].max(least + 1);
                }
            }
        }
        self.counted += 1;
        if self.counted >= self.sample {
            self.age();
        }
    }

    /// How often the key was used, with what has aged taken off.
    pub(super) fn of(&self, key: u64) -> u8 {
        self.least(key) + u8::from(self.has_entered(key))
    }

    fn least(&self, key: u64) -> u8 {
        let counts = self.rows.iter().zip(places(key, self.mask)).map(|(row, place)| row[place]);
        counts.min().unwrap_or(0)
    }

    /// Tells whether the doorkeeper knew the key; now it does.
    fn enter(&mut self, key: u64) -> bool {
        let mut known = true;
        for place in places(!key, self.doorkeeper.len() as u64 - 1) {
            known &= std::mem::replace(&mut self.doorkeeper[place], true);
        }
        known
    }

    fn has_entered(&self, key: u64) -> bool {
        places(!key, self.doorkeeper.len() as u64 - 1).all(|place| self.doorkeeper[place])
    }

    fn age(&mut self) {
        self.counted /= 2;
        self.rows.iter_mut().flatten().for_each(|count| *count /= 2);
        self.doorkeeper.fill(false);
    }
}

fn places(key: u64, mask: u64) -> impl Iterator<Item = usize> {
    (1..=ROWS as u64).map(move |row| (mix(key ^ mix(row)) & mask) as usize)
}
