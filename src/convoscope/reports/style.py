"""How the report looks, on a screen and on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#fbfbfa;--ink:#1a1c20;--soft:#59616a;--line:#dfe2e6;--accent:#0b62a4;
--track:#e6e9ec;--bad:#a63603;--warn:#8a5a00;--good:#00694b}
@media (prefers-color-scheme:dark){:root{--page:#131518;--ink:#e8e9eb;--soft:#a1a9b3;--line:#2d3238;--accent:#6db3ec;
--track:#2a2f35;--bad:#ff9b6b;--warn:#f0c04a;--good:#5fd0a8}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans KR",sans-serif}
header,main,footer{max-width:1080px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
footer{padding-top:32px;padding-bottom:48px}
h1{font-size:27px;letter-spacing:-.015em;margin:0 0 6px}
h2{font-size:19px;margin:0 0 4px;overflow-wrap:anywhere}
h3{font-size:14px;margin:26px 0 10px}
h4{font-size:13px;margin:0}
p{margin:0 0 8px;max-width:72ch}
a{color:var(--accent)}
section{border-top:1px solid var(--line);padding:28px 0 8px;margin-top:28px}
nav ol{list-style:none;margin:14px 0;padding:0;display:flex;flex-wrap:wrap;gap:4px 20px}
.soft{color:var(--soft);font-size:13px}
.doubt,.doubts{color:var(--warn);font-size:12.5px}
.verdict{color:var(--good);font-size:12.5px}
figure{margin:0;min-width:0}
figure img{display:block;width:100%;height:auto;border-radius:4px}
figcaption{font-size:12.5px;color:var(--soft);margin-top:5px;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.question{display:grid;grid-template-columns:minmax(160px,300px) minmax(0,1fr);gap:24px;align-items:start;
margin-top:12px}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:18px}
.thumbs{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:10px;max-width:860px}
.thumbs figcaption{font-size:11.5px;margin-top:2px}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:10px;max-width:860px;margin:10px 0}
.pictures figcaption{font-size:11.5px;margin-top:2px}
.pixelated img{image-rendering:pixelated}
.card{margin:14px 0}
.card h3{margin:18px 0 4px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--track);border-radius:5px;padding:8px 12px}
section table:not(.bars){border-collapse:collapse;font-size:13px}
section table:not(.bars) th,section table:not(.bars) td{text-align:left;padding:3px 14px 3px 0}
.unit{margin:12px 0}
.legend{display:inline-flex;gap:6px;align-items:center;font-variant-numeric:tabular-nums}
.legend img{width:92px;height:8px;display:inline-block;border-radius:2px}
table.bars{border-collapse:collapse;width:100%;max-width:560px;font-variant-numeric:tabular-nums}
.bars th,.bars td{text-align:left;font-weight:400;padding:3px 10px 3px 0;font-size:13.5px}
.bars tr:first-child th{color:var(--soft);font-size:12px}
.bars .bar{width:44%}
.bars svg{display:block;width:100%;height:10px}
.bars rect{fill:var(--accent);opacity:.55}
.bars rect.track{fill:var(--track);opacity:1}
.bars .chosen th,.bars .chosen td{font-weight:650}
.bars .chosen rect:not(.track){opacity:1}
dl{display:grid;grid-template-columns:max-content 1fr;gap:10px 20px}
dt{font-weight:600}
dd{margin:0}
.formula{font:italic 14px/1.5 "Cambria Math","STIX Two Math",Georgia,serif}
.right{color:var(--good)}.wrong{color:var(--bad)}.says{font-size:11.5px}
.half{max-width:640px}
.sheet img{background:#fff}
@media (max-width:640px){header,main,footer{padding-left:14px;padding-right:14px}
.question,dl{grid-template-columns:1fr}
.maps{grid-template-columns:1fr 1fr;gap:12px}dl{gap:2px}dd{margin-bottom:10px}}
@media print{:root{--page:#fff;--ink:#000;--soft:#444;--line:#bbb}body{font-size:11pt}header{padding-top:0}
header,main,footer{max-width:none;padding:0}section{border:0;margin:0;padding:4mm 0 0}
figure,.unit,tr,.block,dt,dd{break-inside:avoid}h2,h3,h4,dt{break-after:avoid}
nav{display:none}h1{font-size:18pt}h2{font-size:13pt}h3{margin:4mm 0 2mm}p{margin:0 0 1.5mm}
.question{grid-template-columns:52mm minmax(0,1fr);gap:6mm;margin-top:2mm}
.maps{grid-template-columns:repeat(4,1fr);gap:4mm}figcaption,.soft,.doubt,.doubts,.verdict{font-size:8pt}
.half{max-width:96mm}.wide{max-width:104mm}.thumbs{grid-template-columns:repeat(8,1fr);gap:2.5mm;max-width:none}
.pictures{grid-template-columns:repeat(8,1fr);gap:2.5mm;max-width:none;margin:2mm 0}.card{margin:3mm 0}
pre{font-size:8pt;padding:1.5mm 3mm;margin:1mm 0}section table:not(.bars){font-size:8.5pt}
.thumbs figcaption,.pictures figcaption{font-size:7pt}.unit{margin:2mm 0}
#methods{break-before:auto}dl{gap:2mm 5mm;font-size:8.5pt}
.bars th,.bars td{padding:.6mm 3mm .6mm 0;font-size:9pt}footer{padding:4mm 0 0}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
@page{size:A4;margin:14mm 13mm}
"""
