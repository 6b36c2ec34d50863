//! Lines over the number of clients as SVG; both axes logarithmic.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 4] = ["#c0392b", "#7fb3d5", "#1f618d", "#7d6608"];

/// The points of one system, in the order of x.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Panels side by side, each with what its y axis says and its lines.
pub fn draw(title: &str, panels: &[(&str, Vec<Line>)], x_says: &str) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"18\" font-size=\"14\">{title}</text>\n"
    );
    for (at, (says, lines)) in panels.iter().enumerate() {
        panel(&mut svg, at as f64 * WIDTH, says, lines, x_says);
    }
    svg += "</svg>\n";
    svg
}

/// The decades that hold all values.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| *value > 0.0) {
        (low, high) = (low.min(value), high.max(value));
    }
    if high == 0.0 {
        return (0, 1);
    }
    let (low, high) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (low, high.max(low + 1))
}

fn panel(svg: &mut String, from: f64, says: &str, lines: &[Line], x_says: &str) {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (low, high) = decades(points().map(|(_, y)| y));
    let most = points().map(|(x, _)| x).fold(2.0, f64::max);
    let x = |value: f64| from + LEFT + value.max(1.0).ln() / most.ln() * (WIDTH - LEFT - 20.0);
    let y = |value: f64| {
        let part = (value.max(1e-9).log10() - f64::from(low)) / f64::from(high - low);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    };
    for decade in low..=high {
        let at = y(10_f64.powi(decade));
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            from + LEFT,
            from + WIDTH - 20.0,
            from + LEFT - 6.0,
            at + 4.0,
            10_f64.powi(decade)
        );
    }
    let mut ticks: Vec<f64> = points().map(|(x, _)| x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{tick}</text>",
            x(tick),
            HEIGHT - BOTTOM + 16.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{x_says}</text><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{says}</text>",
        from + WIDTH - 20.0,
        HEIGHT - 6.0,
        from + 12.0,
        TOP - 12.0
    );
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = line.points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
        let _ = writeln!(svg, "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join("L"));
        for (px, py) in &line.points {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*px), y(*py));
        }
    }
    // The legend stands above, where no line goes.
    let mut at = from + 90.0;
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
