//! Answers over time as SVG: above their latency (half of all, 99 of a hundred; logarithmic), below how many there were
//! and how many calls failed; faults as bands with their names.

use std::fmt::Write as _;

use super::{
    report::{Call, share},
    run::Fault,
};

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 15.0;
/// Room for the names of faults.
const TOP: f64 = 120.0;
const PANEL: f64 = 180.0;
const GAP: f64 = 40.0;
const SLOT_NS: u64 = 250_000_000;
/// Latencies from a tenth of a millisecond to ten seconds.
const DECADES: (f64, f64) = (-1.0, 4.0);

struct Slot {
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    ok: usize,
    failed: usize,
}

pub fn draw(calls: &[Call], faults: &[Fault], begin_ns: u64, end_ns: u64) -> String {
    let slots = slots(calls, begin_ns, end_ns);
    let height = TOP + 2.0 * PANEL + GAP + 40.0;
    let x = |ns: u64| {
        LEFT + (ns.clamp(begin_ns, end_ns) - begin_ns) as f64 / (end_ns - begin_ns) as f64 * (WIDTH - LEFT - RIGHT)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    bands(&mut svg, faults, &x);
    latency_panel(&mut svg, &slots, |slot| x(begin_ns + slot as u64 * SLOT_NS + SLOT_NS / 2));
    count_panel(&mut svg, &slots, |slot| x(begin_ns + slot as u64 * SLOT_NS));
    let seconds = (end_ns - begin_ns).div_ceil(1_000_000_000);
    let step = [1, 2, 5, 10, 20, 60, 120, 600].into_iter().find(|step| seconds / step <= 15).unwrap_or(3_600);
    for second in (0..seconds).step_by(step as usize) {
        let at = x(begin_ns + second * 1_000_000_000);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{second} s</text>",
            height - 22.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{y}\" fill=\"#555\">bands: faults, from injection until all nodes were ready again</text>\n</svg>",
        y = height - 6.0
    );
    svg
}

fn slots(calls: &[Call], begin_ns: u64, end_ns: u64) -> Vec<Slot> {
    let count = (end_ns - begin_ns).div_ceil(SLOT_NS).max(1) as usize;
    let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); count];
    let mut failed = vec![0; count];
    for call in calls {
        let slot = ((call.end_ns.saturating_sub(begin_ns) / SLOT_NS) as usize).min(count - 1);
        match call.ok {
            true => latencies[slot].push(call.end_ns - call.start_ns),
            false => failed[slot] += 1,
        }
    }
    let slot = |(mut all, failed): (Vec<u64>, usize)| {
        all.sort_unstable();
        let of = |part: f64| share(&all, part).map(|ns| ns as f64 / 1e6);
        Slot { p50_ms: of(0.5), p99_ms: of(0.99), ok: all.len(), failed }
    };
    latencies.into_iter().zip(failed).map(slot).collect()
}

fn bands(svg: &mut String, faults: &[Fault], x: &impl Fn(u64) -> f64) {
    let bottom = TOP + 2.0 * PANEL + GAP;
    let mut free = 0.0;
    for fault in faults {
        let (from, until) = (x(fault.from_ns), x(fault.until_ns));
        // Names of faults that come together stand side by side.
        let name = f64::max(from + 4.0, free);
        free = name + 13.0;
        let width = (until - from).max(1.5);
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#d33\" fill-opacity=\"0.10\"/>\
             <line x1=\"{from:.1}\" y1=\"{TOP}\" x2=\"{from:.1}\" y2=\"{bottom:.1}\" stroke=\"#d33\" stroke-opacity=\"0.5\"/>\
             <text transform=\"translate({:.1},{:.1}) rotate(-55)\" fill=\"#a22\">{}</text>",
            bottom - TOP,
            name,
            TOP - 4.0,
            fault.name
        );
    }
}

fn frame(svg: &mut String, top: f64, title: &str) {
    let width = WIDTH - LEFT - RIGHT;
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#999\"/>\
         <text x=\"{}\" y=\"{}\" fill=\"#333\">{title}</text>",
        LEFT + 6.0,
        top + 14.0
    );
}

fn latency_panel(svg: &mut String, slots: &[Slot], x: impl Fn(usize) -> f64) {
    frame(svg, TOP, "latency: half of the answers (dark), 99 of 100 (light)");
    let y = |ms: f64| {
        let part = (ms.max(0.1).log10() - DECADES.0) / (DECADES.1 - DECADES.0);
        TOP + PANEL * (1.0 - part.clamp(0.0, 1.0))
    };
    for (ms, label) in [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1_000.0, "1 s"), (10_000.0, "10 s")] {
        let at = y(ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            at + 4.0
        );
    }
    type Of = fn(&Slot) -> Option<f64>;
    for (colour, of) in [("#8fb8de", (|slot| slot.p99_ms) as Of), ("#1f4e79", |slot| slot.p50_ms)] {
        // A line is broken where nothing was answered.
        let mut path = String::new();
        let mut pen = 'M';
        for (number, slot) in slots.iter().enumerate() {
            match of(slot) {
                Some(ms) => {
                    let _ = write!(path, "{pen}{:.1} {:.1}", x(number), y(ms));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linecap=\"round\"/>"
        );
    }
}

fn count_panel(svg: &mut String, slots: &[Slot], x: impl Fn(usize) -> f64) {
    let top = TOP + PANEL + GAP;
    frame(svg, top, "answers each second (green), calls without (red)");
    let most = slots.iter().map(|slot| slot.ok + slot.failed).max().unwrap_or(1).max(1);
    let each_second = 1_000_000_000 / SLOT_NS;
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
        LEFT - 5.0,
        top + 10.0,
        most as u64 * each_second
    );
    let scale = (PANEL - 20.0) / most as f64;
    for (number, slot) in slots.iter().enumerate() {
        let (from, width) = (x(number), (x(number + 1) - x(number) - 0.3).max(0.3));
        let (ok, failed) = (slot.ok as f64 * scale, slot.failed as f64 * scale);
        let bottom = top + PANEL;
        for (colour, at, height) in [("#4f8a5b", bottom - ok, ok), ("#c0392b", bottom - ok - failed, failed)] {
            if height > 0.0 {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{from:.1}\" y=\"{at:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
                );
            }
        }
    }
}
