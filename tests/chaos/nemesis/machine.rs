//! Clocks that are wrong, and processors that others use.

use std::fs;

use rand::Rng;

use super::{Nemesis, World};

pub fn inject(nemesis: Nemesis, world: &mut World) -> String {
    let id = world.any();
    match nemesis {
        Nemesis::ClockJump => {
            let by = world.rng.random_range(-86_400..=86_400);
            set_clock(world, id, &format!("{by:+}"));
            format!("clock of node {id}: {by:+} s")
        }
        Nemesis::ClockRate => {
            let rates = ["0.5", "0.8", "1.2", "2", "5"];
            let rate = rates[world.rng.random_range(0..rates.len())];
            set_clock(world, id, &format!("+0 x{rate}"));
            format!("clock of node {id}: x{rate}")
        }
        Nemesis::StarvedProcessor => {
            if let Err(error) = world.cluster.node(id).limit_processor(Some(5)) {
                return format!("node {id} could not be starved: {error}");
            }
            format!("node {id} at 5 % of a processor")
        }
        _ => unreachable!("{nemesis:?} is of another family"),
    }
}

fn set_clock(world: &mut World, id: u64, text: &str) {
    if let Some(file) = &world.cluster.node(id).clock {
        // Replaced as a whole, since the node reads it all the time.
        let new = file.with_extension("new");
        fs::write(&new, format!("{text}\n")).unwrap();
        fs::rename(&new, file).unwrap();
    }
}

pub fn heal(world: &mut World) {
    for id in world.cluster.ids() {
        set_clock(world, id, "+0");
        if let Err(error) = world.cluster.node(id).limit_processor(None) {
            world.violations.push(format!("the limits of node {id} stay: {error}"));
        }
    }
}
