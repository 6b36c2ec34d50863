//! Lines as SVG: over the number of clients with both axes logarithmic, or over time with both even.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 4] = ["#c0392b", "#7fb3d5", "#1f618d", "#7d6608"];
/// Marks on an even axis, beside that of zero.
const MARKS: u32 = 5;

/// The points of one system, in the order of x.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// How the axes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Logarithmic,
    Even,
}

/// One axis: where a value is on it, from 0 to 1.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that holds these values; a logarithmic one in whole decades if `whole`.
    fn of(scale: Scale, values: impl Iterator<Item = f64>, whole: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        match scale {
            Scale::Even => {
                let step = even_step(high.max(1e-9));
                Self { scale, low: 0.0, high: (high / step).ceil().max(1.0) * step }
            }
            Scale::Logarithmic if high == 0.0 => Self { scale, low: 0.0, high: 1.0 },
            Scale::Logarithmic if whole => {
                let (low, high) = (low.log10().floor(), high.log10().ceil());
                Self { scale, low, high: high.max(low + 1.0) }
            }
            Scale::Logarithmic => Self { scale, low: 0.0, high: high.max(2.0).log10() },
        }
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Even { value } else { value.max(1e-9).log10() };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Even => {
                let step = even_step(self.high);
                (0..).map(|n| f64::from(n) * step).take_while(|mark| *mark <= self.high * 1.001).collect()
            }
            Scale::Logarithmic => (self.low as i32..=self.high as i32).map(|decade| 10_f64.powi(decade)).collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, of which a few make `high`.
fn even_step(high: f64) -> f64 {
    let rough = high / f64::from(MARKS);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough * 0.999).unwrap_or(power)
}

/// Panels side by side, each with what its y axis says and its lines.
pub fn draw(title: &str, scale: Scale, panels: &[(&str, Vec<Line>)], x_says: &str) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"18\" font-size=\"14\">{title}</text>\n"
    );
    for (at, (says, lines)) in panels.iter().enumerate() {
        panel(&mut svg, at as f64 * WIDTH, scale, says, lines, x_says);
    }
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, from: f64, scale: Scale, says: &str, lines: &[Line], x_says: &str) {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let across = Axis::of(scale, points().map(|(x, _)| x), false);
    let up = Axis::of(scale, points().map(|(_, y)| y), true);
    let x = |value: f64| from + LEFT + across.at(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - up.at(value) * (HEIGHT - TOP - BOTTOM);
    for mark in up.marks() {
        let at = y(mark);
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            from + LEFT,
            from + WIDTH - RIGHT,
            from + LEFT - 6.0,
            at + 4.0,
            said(mark)
        );
    }
    let mut ticks = match scale {
        Scale::Even => across.marks(),
        Scale::Logarithmic => points().map(|(x, _)| x).collect(),
    };
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            x(tick),
            HEIGHT - BOTTOM + 16.0,
            said(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{x_says}</text><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{says}</text>",
        from + WIDTH - RIGHT,
        HEIGHT - 6.0,
        from + 12.0,
        TOP - 12.0
    );
    let marked = scale == Scale::Logarithmic;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = line.points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
        let stroke = if marked { 2.0 } else { 1.2 };
        let path = path.join("L");
        let _ = writeln!(svg, "<path d=\"M{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{stroke}\"/>");
        for (px, py) in line.points.iter().filter(|_| marked) {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*px), y(*py));
        }
    }
    // The legend stands above, where no line goes.
    let mut at = from + 150.0;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            TOP - 16.0,
            at + 8.0,
            TOP - 12.0,
            line.name
        );
        at += 24.0 + 6.5 * line.name.len() as f64;
    }
}

/// A number of an axis.
fn said(value: f64) -> String {
    if value >= 1.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}
