//! CPU and evenness over the number of calls, as SVG.

use std::fmt::Write;

use super::Row;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 250.0;

/// A line in its colour, and what its axis says.
struct Curve {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
    top: f64,
}

pub fn draw(rows: &[Row]) -> String {
    let calls: Vec<f64> = rows.iter().map(|row| row.calls as f64).collect();
    let most = calls.iter().copied().fold(1.0, f64::max);
    let cpu = rows.iter().map(|row| row.cpu_percent).collect();
    let pacing = rows.iter().map(Row::pacing_p99_ms).collect();
    let curves = [
        Curve { name: "server CPU, % of a core", colour: "#1668b8", values: cpu, top: 100.0 },
        Curve { name: "packets off by, p99, ms", colour: "#c04a1a", values: pacing, top: 5.0 },
    ];
    let x = |calls: f64| LEFT + (RIGHT - LEFT) * calls / most;
    let y = |share: f64| BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing to a string cannot fail.
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"{3}\">{4}</text>\
             <text x=\"{5}\" y=\"{2:.1}\" fill=\"{6}\">{7}</text>",
            y(share),
            LEFT - 8.0,
            y(share) + 4.0,
            curves[0].colour,
            curves[0].top * share,
            RIGHT + 8.0,
            curves[1].colour,
            curves[1].top * share,
        );
    }
    for &calls in &calls {
        let (x, y) = (x(calls), BOTTOM + 18.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{calls}</text>");
    }
    for (curve, at) in curves.iter().zip([LEFT, RIGHT]) {
        let places: Vec<(f64, f64)> =
            calls.iter().zip(&curve.values).map(|(c, v)| (x(*c), y(v / curve.top))).collect();
        let points: String = places.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let colour = curve.colour;
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        for (x, y) in places {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let anchor = if at == LEFT { "start" } else { "end" };
        let name = curve.name;
        let _ = writeln!(
            svg,
            "<text x=\"{at}\" y=\"18\" text-anchor=\"{anchor}\" fill=\"{colour}\">{name}</text>"
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">concurrent calls</text>\n</svg>",
        HEIGHT - 8.0
    );
    svg
}
