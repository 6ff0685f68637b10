"""Colours of figures and page, each in a light and a dark variant, and the page's style sheet.

Figures are drawn in the light colours. Inside the page every light colour becomes the CSS variable
of its role, so that one drawing serves both schemes (see `resnet_jax.reporting.svg`).
"""

ROLES = {  # role: (light, dark)
    "paper": ("#ffffff", "#15171a"),
    "ink": ("#1c1e21", "#e8e6e1"),
    "muted": ("#6a6f76", "#9aa0a8"),
    "rule": ("#d9dbde", "#363a40"),
    "accent": ("#8f2d1e", "#ff9d85"),
    # Shallow to deep: apart in hue for every kind of colour vision, and darker with depth in grey
    # (lighter with depth on a dark ground).
    "series-0": ("#e09a00", "#e0b545"),
    "series-1": ("#dd6a1f", "#dd7038"),
    "series-2": ("#c93f5f", "#e3708a"),
    "series-3": ("#93409f", "#c283da"),
    "series-4": ("#4a52c8", "#8d9dff"),
    "series-5": ("#1f5a86", "#7cc4ee"),
    "series-6": ("#101c44", "#e4ecff"),
    "family-plain": ("#c4501b", "#f08a4b"),
    "family-residual": ("#1f5fa8", "#7db4f5"),
    "family-pre-activation": ("#0f6b53", "#5fd0ab"),
    "family-other": ("#5a5a62", "#b4b4bc"),
}

LIGHT = {role: light for role, (light, _) in ROLES.items()}
SERIES = tuple(LIGHT[f"series-{index}"] for index in range(7))


def _variables(variant: int) -> str:
    return "".join(f"--{role}:{colours[variant]};" for role, colours in ROLES.items())


SHEET = (
    f":root{{color-scheme:light dark;{_variables(0)}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}\n"
    """
:root {
  --sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Noto Sans", "Liberation Sans", sans-serif;
  --serif: Charter, "Bitstream Charter", "Source Serif 4", "Noto Serif", Cambria, Georgia, serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 3rem 1.5rem 5rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 var(--sans); overflow-wrap: break-word;
}
h1, h2, h3 { font-family: var(--serif); font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: 1.9rem; margin: 0 0 .35rem; }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .9rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: 0 0 .8rem; max-width: 44rem; }
.about, .note, figcaption { color: var(--muted); font-size: .9rem; }
.finding {
  margin: 2rem 0 2.4rem; padding-left: 1.1rem; border-left: 3px solid var(--accent);
}
.finding p { font: 1.3rem/1.5 var(--serif); max-width: 50rem; margin: 0 0 .6rem; }
.finding p.detail { font: 1.02rem/1.5 var(--sans); max-width: 50rem; }
.finding p.caveat { font: .95rem/1.5 var(--sans); color: var(--muted); }
.warning {
  margin: 0 0 2.4rem; padding: .8rem 1rem; border: 1px solid var(--accent); border-radius: 4px;
}
.warning h2 { font: 600 1rem var(--sans); color: var(--accent); margin: 0 0 .3rem; }
.warning ul { margin: 0; padding-left: 1.2rem; font-size: .92rem; }
figure { margin: 0; }
.panels {
  display: grid; gap: 1.6rem 1.5rem; grid-template-columns: repeat(2, minmax(0, 1fr));
  margin-bottom: 1.4rem;
}
.panels.of-1 { grid-template-columns: minmax(0, 40rem); }
.panels.of-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
svg.panel { display: block; width: 100%; height: auto; }
svg.panel * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { max-width: 50rem; }
.scroll { overflow-x: auto; margin: 0 0 .6rem; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
table {
  border-collapse: collapse; font-size: .9rem; line-height: 1.35; min-width: 100%;
  font-variant-numeric: tabular-nums lining-nums;
  border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink);
}
th, td { padding: .42rem .7rem; text-align: left; vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; }
tbody th { font-weight: 500; }
.words { white-space: normal; min-width: 11rem; }
.name { white-space: nowrap; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
.numeric { text-align: right; }
.status-diverged, .status-failed { color: var(--accent); font-weight: 600; }
.status-partial, .status-missing { color: var(--muted); font-style: italic; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.4rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .85rem/1.5 var(--mono); }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .8rem 0; }
summary { cursor: pointer; }
.analysis img { max-width: 100%; background: #fff; border-radius: 4px; padding: .5rem; }
@media (max-width: 44rem) {
  body { padding: 1.6rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .finding p { font-size: 1.12rem; }
  .panels, .panels.of-3 { grid-template-columns: minmax(0, 1fr); }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .7rem; }
}
@media print {
  :root { font-size: 10pt; }
  body { max-width: none; padding: 0; }
  table { font-size: 7.5pt; }
  th, td { white-space: normal; padding: .25rem .4rem; }
  tbody th { white-space: nowrap; }
  .words { min-width: 0; }
  .panels { gap: .5rem; }
  .panels, tr, .warning { break-inside: avoid; }
  .scroll { overflow: visible; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
}
"""
)
