//! Draws what the benchmarks have found: `docs/figures.md`, a chart, and the README's table.
//! Started by `benches/report`, with the file that they have written into.

mod sheet;

use std::env;
use std::fmt::Write;
use std::fs;

use sheet::Sheet;

fn main() {
    let path = env::var_os(sheet::SHEETS).expect("benches/report names the file of the figures");
    let sheets = fs::read_to_string(path).expect("the file of the figures");
    let sheets: Vec<Sheet> =
        sheets.lines().map(|line| serde_json::from_str(line).expect("a sheet")).collect();
    fs::write("docs/figures.md", document(&sheets)).expect("docs/figures.md");
    fs::write("docs/figures.svg", chart(&sheets)).expect("docs/figures.svg");
    let readme = fs::read_to_string("README.md").expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("the place for the figures");
    let (_, after) = rest.split_once(END).expect("the end of the figures");
    let readme = format!("{before}{BEGIN}{}{END}{after}", claims(&sheets));
    fs::write("README.md", readme).expect("README.md");
    let claims = || sheets.iter().flat_map(|sheet| &sheet.claims);
    for claim in claims().filter(|claim| !claim.is_met) {
        println!("not met: {}: {}; goal {}", claim.what, claim.figure, claim.goal);
    }
    println!("{} of {} goals met", claims().filter(|claim| claim.is_met).count(), claims().count());
}

fn document(sheets: &[Sheet]) -> String {
    let mut text = format!("# Figures\n\n{INTRODUCTION}\n");
    for sheet in sheets {
        let mut title = sheet.title.clone();
        title[..1].make_ascii_uppercase();
        let _ = write!(text, "\n## {title}\n\n");
        table(&mut text, &[&[sheet.columns.clone()], &sheet.rows[..]].concat());
        for claim in &sheet.claims {
            let verdict = if claim.is_met { "met" } else { "**not met**" };
            let _ = write!(text, "\nGoal: {}: {verdict}, by {}.\n", claim.goal, claim.figure);
        }
    }
    text
}

fn claims(sheets: &[Sheet]) -> String {
    let mut rows = vec![["", "this crate", "goal", "others, in the same run"].map(str::to_owned)];
    for claim in sheets.iter().flat_map(|sheet| &sheet.claims) {
        let mark = if claim.is_met { "" } else { " (**not met**)" };
        let figure = format!("{}{mark}", claim.figure);
        rows.push([claim.what.clone(), figure, claim.goal.clone(), claim.peer.clone()]);
    }
    let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
    let mut text = "\n".to_owned();
    table(&mut text, &rows);
    text
}

fn table(text: &mut String, rows: &[Vec<String>]) {
    for (n, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if n == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
}

/// A group of bars for each of the panels, one bar for each row.
fn chart(sheets: &[Sheet]) -> String {
    let mut bars = String::new();
    let mut y = 24;
    for (title, column, unit) in PANELS {
        let sheet = sheets.iter().find(|sheet| sheet.title.starts_with(title));
        let sheet = sheet.unwrap_or_else(|| panic!("no figures of {title:?}"));
        let place = |name: &str| sheet.columns.iter().position(|column| column == name);
        let column = place(column).unwrap_or_else(|| panic!("no column {column:?}"));
        let value =
            |row: &[String], place: usize| row[place].trim_start_matches('+').parse::<f64>();
        // What has no figure in this column is what the others are compared with.
        let rows: Vec<_> =
            sheet.rows.iter().filter_map(|row| Some((row, value(row, column).ok()?))).collect();
        let most = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(bars, r#"<text class="title" x="0" y="{y}">{title}</text>"#);
        y += 10;
        for (row, figure) in rows {
            let failed = place("failed").and_then(|place| value(row, place).ok()).unwrap_or(0.0);
            let class = match row[0].trim() {
                "this crate" => "ours",
                _ if failed > 0.0 => "lost",
                _ => "theirs",
            };
            let failed =
                if failed > 0.0 { format!(", {failed} requests failed") } else { String::new() };
            let (width, middle) = (figure / most * BAR, y + 12);
            let (name, end) = (&row[0], LEFT + width + 6.0);
            let _ = writeln!(
                bars,
                r#"<text class="name" x="{}" y="{middle}">{name}</text>"#,
                LEFT - 8.0
            );
            let _ = writeln!(
                bars,
                r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="16" rx="2"/>"#
            );
            let _ =
                writeln!(bars, r#"<text x="{end:.1}" y="{middle}">{figure} {unit}{failed}</text>"#);
            y += 21;
        }
        y += 30;
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -4 960 {y}" font-family="sans-serif" font-size="13">
<style>
text {{ fill: #444 }} .title {{ font-weight: bold; font-size: 14px; fill: #222 }} .name {{ text-anchor: end }}
.ours {{ fill: #2a7d4f }} .theirs {{ fill: #9aa5b1 }} .lost {{ fill: #c0392b }}
</style>
<rect x="-16" y="-4" width="960" height="{y}" fill="#fff"/>
{bars}</svg>
"#
    )
}

/// By the beginning of their titles, with the column that is drawn, and its unit.
const PANELS: [(&str, &str, &str); 7] = [
    ("instructions of a request", "instructions", "instructions"),
    ("1,000 requests at once", "ms", "ms"),
    ("10,000 requests at once", "ms", "ms"),
    ("8 programs", "ms", "ms"),
    ("the first caller is dropped", "ms", "ms"),
    ("100 requests, one after the other", "token requests", "refreshes"),
    ("20 expiries under steady load", "max", "ms at most"),
];
const LEFT: f64 = 290.0;
const BAR: f64 = 420.0;

const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- /figures -->";
const INTRODUCTION: &str = "Measured in one run by `benches/report`, on a machine of two cores. \
    Times are for comparing within a table; instructions and counts are the same everywhere but for \
    the compiler.";
