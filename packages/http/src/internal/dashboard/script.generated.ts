// Made by `npm run client` from packages/http/client/main.ts. Do not edit.
export const script = `"use strict";(()=>{var $={hello:{name:null,window:3e5,interval:1e3,coarseWindow:36e5,coarseInterval:1e4,queueCounts:null,max:null},instance:void 0,
starts:[],coarse:[],samples:[],phases:[],consumers:[],totals:void 0,table:void 0},i={data:$,isFrozen:!1,isHour:!1,isLocal:!1,
pointed:void 0,speaking:void 0},Ve=()=>{let{coarse:e,consumers:t,phases:n,samples:o,starts:s}=$;i.data={...$,starts:[...s],
coarse:[...e],samples:[...o],phases:[...n],consumers:[...t]},i.isFrozen=!0},je=()=>{i.data=$,i.isFrozen=!1},ne=["regular",
"confirm","transaction"];var oe={connecting:["connecting","warn"],open:["open","good"],blocked:["blocked","warn"],reconnecting:["reconnecting","b\\
ad"],closed:["closed","bad"],none:["none","soft"],gone:["service gone","soft"]},We={running:["running","good"],starting:[
"starting","warn"],reconnecting:["reconnecting","warn"],waiting:["waiting for its queue","warn"],ended:["ended","bad"],stopped:[
"stopped","soft"]},_e=new Intl.NumberFormat("en",{maximumFractionDigits:0}),Ct=new Intl.NumberFormat("en",{maximumFractionDigits:1}),
qe=new Intl.NumberFormat("en",{maximumSignificantDigits:3}),x=e=>_e.format(e),Z=e=>(e>0&&e<100?Ct:_e).format(e),de=e=>e>=
1e3?\`\${qe.format(e/1e3)} s\`:\`\${qe.format(e)} ms\`,F=e=>{let t=Math.max(0,Math.round(e/1e3));return t<60?\`\${t}\\xA0s\`:t<3600?
\`\${Math.floor(t/60)}\\xA0min \${t%60}\\xA0s\`:t<172800?\`\${Math.floor(t/3600)}\\xA0h \${Math.floor(t%3600/60)}\\xA0min\`:\`\${Math.
floor(t/86400)}\\xA0days\`},ge=e=>String(e).padStart(2,"0"),ze=e=>new Date(i.isLocal?e-new Date(e).getTimezoneOffset()*6e4:
e),ke=e=>e.toISOString().slice(0,10),N=e=>{let t=ze(e),n=\`\${ge(t.getUTCHours())}:\${ge(t.getUTCMinutes())}:\${ge(t.getUTCSeconds())}\`;
return ke(t)===ke(ze(Date.now()))?n:\`\${ke(t)} \${n}\`},se=()=>{if(!i.isLocal)return"UTC";let e=-new Date().getTimezoneOffset(),
[t,n]=[Math.floor(Math.abs(e)/60),Math.abs(e)%60],o=\`UTC\${e<0?"\\u2212":"+"}\${t}\${n===0?"":\`:\${ge(n)}\`}\`,s=Intl.DateTimeFormat().
resolvedOptions().timeZone;return s===void 0||s==="UTC"?o:\`\${s} (\${o})\`},ce=e=>e.replace(/[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]/g,
t=>\`\\\\u\${t.charCodeAt(0).toString(16).padStart(4,"0")}\`);var Be=(e,t,n)=>{for(let[o,s]of Object.entries(t))e.setAttribute(o,String(s));return e.append(...n),e},b=(e,t={},...n)=>Be(
document.createElement(e),t,n),D=(e,t,...n)=>Be(document.createElementNS("http://www.w3.org/2000/svg",e),t,n),S=e=>{let t=document.
getElementById(e);if(t===null)throw new Error(\`no element has the id \${e}\`);return t},h=(e,t,n)=>{e.textContent!==t&&(e.
textContent=t),n!==void 0&&e.className!==n&&(e.className=n)},L=e=>{let t=S("say");for(t.append(b("p",{},e));t.children.length>
5;)t.firstChild?.remove()},kt=33,z=(e,t,n)=>{let o=ce(t),s=n===void 0?[]:[\`: \${ce(n)}\`];if(e.textContent===o+s.join("")&&
e.childElementCount===1)return;let r=b("bdi",{},o);if(o.length<kt)return e.replaceChildren(r,...s);let a=b("button",{type:"\\
button",class:"name","aria-expanded":"false",title:o},r);a.addEventListener("click",()=>{a.setAttribute("aria-expanded",
String(a.getAttribute("aria-expanded")==="false"))}),e.replaceChildren(a,...s)},Q=e=>{let t=e.map(s=>b("th",{scope:"col"},
s)),n=b("tbody"),o=[];return{element:b("table",{},b("thead",{},b("tr",{},...t)),n),head:t,row:s=>{let r=o[s];if(r!==void 0)
return r;let a=e.map((d,u)=>u===0?b("th",{scope:"row"}):b("td"));return n.append(b("tr",{},...a)),o.push(a),a},limit:s=>{
for(let[r]of o.splice(s))r?.parentElement?.remove()}}},J=(e,t,n)=>{let o=t===void 0?[e]:[\`\${e} \`,b("small",{},t)],s=b("f\\
igure",{"aria-labelledby":n},b("h2",{id:n},...o));return S("plots").append(s),s};var ye=e=>Array.isArray(e),Re=e=>e===null?["\\u2013",""]:e==="missing"?["no such queue","bad"]:ye(e)?[\`\${x(e[0])} at \${N(
e[2])}\`,""]:[\`not counted: \${e.refused}\`,"warn"],Ue=e=>{let t;return()=>{let n=i.data.table?.queues??[];if(t===void 0){if(n.
length===0)return;t=Q(["Queue","ready","consumers"]);let s=J("Other queues","counted by the broker",e);s.className="name\\
s",s.append(t.element)}let o=t;n.forEach(([s,r],a)=>{let[d,u,g]=o.row(a);z(d,s),h(u,...Re(r)),h(g,ye(r)?x(r[1]):"\\u2013")}),
o.limit(n.length),S(e).parentElement.hidden=n.length===0}};var Rt=12,Ge=({hello:e})=>e.queueCounts!==null,Et=[{title:"Queue",key:"name",fill:(e,{queue:t})=>z(e,t)},{title:"Consume\\
r",key:"name",isWanted:({table:e})=>e?.rows.some(({name:t,queue:n})=>t!==n)===!0,fill:(e,{name:t})=>z(e,t)},{title:"Stat\\
e",key:"state",fill:(e,{since:t,state:n},o)=>{let[s,r]=We[n];h(e,\`\${s} for \${F(o-t)}\`,r)}},{title:"Running",key:"few",fill:(e,{
running:t,wanted:n})=>h(e,\`\${x(t)} of \${x(n)}\`,t<n?"bad":"")},{title:"In flight",key:"few",fill:(e,{buffered:t,inFlight:n})=>h(
e,t===0?x(n):\`\${x(n)} + \${x(t)} waiting\`)},{title:"Per second",key:"few",fill:(e,t)=>h(e,t.rate===null?"\\u2013":Z(t.rate))},
{title:"Last error",key:"long",fill:(e,{error:t})=>z(e,t===null?"\\u2013":\`\${t[0]} at \${N(t[1])}\`)},{title:"Last end",key:"\\
long",fill:(e,{end:t})=>h(e,t===null?"\\u2013":\`\${t[0]} at \${N(t[2])}: \${t[1]}\`,t!==null&&t[0]==="failed"?"bad":"")},{title:"\\
Ready in the queue",key:"broker",isWanted:Ge,fill:(e,{broker:t})=>{h(e,...Re(t))}},{title:"Consumers of the queue",key:"\\
broker",isWanted:Ge,fill:(e,{broker:t})=>{h(e,ye(t)?x(t[1]):"\\u2013")}}],Ke=e=>{let t=S("consumers"),n=S("filter"),o=S("\\
filtered"),s=b("tbody",{role:"rowgroup"}),r=b("tr",{role:"row"}),a=b("table",{role:"table","aria-labelledby":"consumers-\\
title"});a.append(b("thead",{role:"rowgroup"},r),s);let d=b("button",{type:"button",hidden:""}),u=!1;d.addEventListener(
"click",()=>{u=!u,e()}),t.append(a,d);let g=[],w=[];n.addEventListener("input",e);let f=c=>{c.length===w.length&&c.every(
(m,p)=>m===w[p])||(w=c,r.replaceChildren(...c.map(({key:m,title:p})=>b("th",{scope:"col",role:"columnheader","data-kind":m},
p))),g.length=0,s.replaceChildren())},l=c=>{let m=g[c];if(m!==void 0)return m;let p=w.map(({key:y,title:T},R)=>R===0?b("\\
th",{scope:"row",role:"rowheader","data-title":T,"data-kind":y}):b("td",{role:"cell","data-title":T,"data-kind":y}));return s.
append(b("tr",{role:"row"},...p)),g.push(p),p};return c=>{let{table:m}=i.data;if(m===void 0)return;f(Et.filter(({isWanted:v})=>v===
void 0||v(i.data)));let p=n.value.trim().toLowerCase(),y=m.rows.filter(({name:v,queue:C})=>\`\${C}
\${v}\`.toLowerCase().includes(p)),T=Math.max(Rt,m.rows.filter(({state:v})=>v!=="running").length),R=p===""&&y.length>T,P=R&&
!u?y.slice(0,T):y;P.forEach((v,C)=>{let E=l(C);w.forEach(({fill:I},V)=>{let H=E[V];I(H,v,c),H.toggleAttribute("data-none",
H.textContent==="\\u2013"||w[V].title==="Consumer"&&v.name===v.queue)})});for(let[v]of g.splice(P.length))v?.parentElement?.
remove();a.hidden=y.length===0,d.hidden=!R,h(d,u?\`Show \${x(T)} rows\`:\`Show all \${x(y.length)} rows\`);let k=m.rows.length+
m.more,A=m.more===0?"":\`; \${x(m.more)} more are not listed\`;h(o,k===0?"There are no consumers.":p===""?\`\${x(m.rows.length)}\\
 \${m.rows.length===1?"row":"rows"}\${A}.\`:\`\${x(y.length)} of \${x(m.rows.length)} rows match\${A}.\`)}};var Qe=e=>Object.entries(e).map(([t,n])=>[t.replace("timedOut","timed out").replace(/_/g," "),[n]]),Ze={title:"Published\\
 since start",tables:({published:e})=>[{head:["Outcome","messages"],rows:Qe(e)}]},Je={title:"Channels and deliveries sin\\
ce start",tables:({pools:e,settled:t})=>{let n={head:["Channels","opened","recycled","discarded","timeouts"],rows:ne.map(
(o,s)=>[o,e[s]??[]])};return t===null?[n]:[n,{head:["Deliveries","count"],rows:Qe(t)}]}},Xe={isWide:!0,title:"Failures b\\
y queue and reason since start",tables:({failures:e})=>[{head:["Handlers","failures"],rows:e.length===0?[["none",[0]]]:e.
map(([t,n,o])=>[[t,n],[o]])}]},Ye={isWide:!0,title:"Dead letters by queue and reason since start",tables:({deadLetters:e},t)=>[
{head:["Failed in","dead letters","first","last"],rows:e.length===0?[["none",[0,"",""]]]:e.map(([n,o,s,r,a])=>[[n,o],[s,
\`\${F(t-r)} ago\`,\`\${F(t-a)} ago\`]])}],advice:"To see why: npx effect-amqp peek, with the name of the dead-letter queue. T\\
o bring them back: npx effect-amqp redrive."},et=({advice:e,isWide:t=!1,tables:n,title:o},s)=>{let r=J(o,void 0,s),a=b("\\
p",{class:"none"},"no data");t&&(r.className="names"),r.append(a);let d=[];return(u,g)=>{u!==void 0&&(a.remove(),n(u,g).
forEach(({head:w,rows:f},l)=>{let c=d[l];c===void 0&&(c=Q(w),d.push(c),r.append(c.element),e!==void 0&&r.append(b("p",{class:"\\
advice"},e))),f.forEach(([m,p],y)=>{let[T,...R]=c.row(y);typeof m=="string"?z(T,m):z(T,...m),R.forEach((P,k)=>{let A=p[k]??
0;h(P,typeof A=="string"?A:x(A))})}),c.limit(f.length)}))}};var Lt=({subject:e,what:t})=>e===null?t:\`\${ce(e)}: \${t}\`,Pt=()=>{let[e,t,n,o]=[b("span"),b("b"),b("span"),b("span")];return{
element:b("li",{},e,t," ",n," ",o),subject:e,what:t,since:n,todo:o}},tt=(e,t)=>e===null?"":\`since \${N(e)} \${se()}, for \${F(
t-e)}.\`,nt=()=>{let e=S("findings"),t=[],n=new Set,o=r=>{let a=t[r];return a===void 0&&(a=Pt(),t.push(a),e.append(a.element)),
a},s=r=>{for(let{element:a}of t.splice(r))a.remove()};return({calmSince:r,findings:a,moreFindings:d},u)=>{a.forEach((f,l)=>{
let{element:c,since:m,subject:p,todo:y,what:T}=o(l);c.className=f.notReady?"bad":"warn",f.subject===null?p.replaceChildren():
z(p,f.subject),h(T,\`\${f.subject===null?"":": "}\${f.what}\${f.notReady?" (not ready)":""}\`),h(m,tt(f.since,u)),h(y,f.todo)});
let g=a.length;if(a.length===0){let{element:f,since:l,subject:c,todo:m,what:p}=o(g++);f.className="good",c.replaceChildren(),
h(p,"Nothing is wrong"),h(l,tt(r,u)),h(m,"")}else if(d>0){let{element:f,since:l,subject:c,todo:m,what:p}=o(g++);f.className=
"warn",c.replaceChildren(),h(p,\`And \${d} more\`),h(l,""),h(m,"")}s(g);let w=new Map(a.map(f=>[\`\${f.rule} \${f.subject??""}\`,
Lt(f)]));for(let[f,l]of w)n.has(f)||L(\`\${l}.\`);n.size>0&&w.size===0&&L("Nothing is wrong any more."),n=new Set(w.keys())}};var ue=e=>e[e.length-1],be=()=>{let{coarse:e,phases:t,samples:n}=i.data;return Math.max(ue(t)?.at??0,ue(n)?.at??0,ue(e)?.
at??0)},re=6e4,we=()=>{let{coarse:e,hello:t,samples:n}=i.data,o=be(),s=o-Math.min(n[0]?.at??o,e[0]?.at??o),r=i.isHour?[10*
re,30*re,t.coarseWindow]:[re,2*re,t.window],a=r.find(u=>s<=u)??r[2],d=a===re?"the last minute":\`the last \${a/re} minutes\`;
return{from:o-a,to:o,words:d}},st=e=>{let{coarse:t,hello:n,samples:o}=i.data,{coarseInterval:s}=n,r=({at:g})=>g>=e.from&&
g<=e.to;if(i.isHour){let g=ue(t)?.at??0;return[...t.filter(r),...o.filter(w=>w.at>g&&r(w)).slice(-1)]}let a=o.filter(r),
d=[],u=0;for(let g of t){if(!r(g))continue;for(;u<a.length&&a[u].at<=g.at;)d.push(a[u++]);(!((ue(d)?.at??0)>g.at-s/2||(a[u]?.
at??1/0)<g.at+1500)||d.length===0)&&d.push(g)}for(;u<a.length;)d.push(a[u++]);return d},Ee=e=>e<2.5*i.data.hello.coarseInterval,
Me=(e,t)=>{let n;for(let o of e)(n===void 0||Math.abs(o.at-t)<Math.abs(n.at-t))&&(n=o);return n!==void 0&&Ee(Math.abs(n.
at-t))?n:void 0},U=46,j=8,Ft=16,xe=(e,t)=>{let[n,o]=[e.clientWidth,e.clientHeight];return{width:n,height:o,low:o-Ft,x:s=>U+
Math.max(0,s-t.from)/(t.to-t.from)*(n-U)}},Nt={1:20,2:30,5:60,10:120,30:600,60:900},ve=(e,t,n)=>{let o=(n.to-n.from)/1e3,
s=Nt[o/60]??o/5;for(let r=0;r<o;r+=s){let a={x:t.x(n.to-r*1e3),y:t.height-2,"text-anchor":r===0?"end":"middle"};e.append(
D("text",a,r===0?"now":\`\\u2212\${r%60===0?\`\${r/60} min\`:\`\${r} s\`}\`))}for(let r of i.data.starts){if(r<n.from||r>n.to)continue;
let a=t.x(r);e.append(D("line",{x1:a,x2:a,y1:0,y2:t.low,stroke:"var(--text)","stroke-dasharray":"1 2"}),...t.height>80?[
D("text",{class:"start",x:Math.min(a+3,t.width-30),y:j+2},"start")]:[])}},$e=(e,t)=>{if(i.pointed===void 0)return;let n=t.
x(i.pointed);e.append(D("line",{class:"pointer",x1:n,x2:n,y1:j,y2:t.low,stroke:"var(--soft)"}))},me=(e,t)=>e.map((n,o)=>({
phase:n,end:Math.min(e[o+1]?.at??t.to,t.to)})).filter(({end:n,phase:o})=>n>=t.from&&o.at<=t.to),ae=e=>{let t=we(),n=i.isHour?
i.data.hello.coarseInterval:i.data.hello.interval,o=(i.pointed??t.to)+e*n;i.pointed=Math.min(t.to,Math.max(t.from,o))},ot={
ArrowLeft:()=>ae(-1),ArrowRight:()=>ae(1),PageDown:()=>ae(-10),PageUp:()=>ae(10),Home:()=>ae(-1/0),End:()=>ae(1/0),Escape:()=>{
i.pointed=void 0}},Ae=(e,t)=>{let n=s=>{let r=e.getBoundingClientRect(),a=we(),d=a.from+(s.clientX-r.left-U)/(r.width-U)*
(a.to-a.from);i.pointed=d>a.to||d<a.from?void 0:d,t()},o=()=>{i.pointed=void 0,t()};e.setAttribute("tabindex","0"),e.setAttribute(
"aria-keyshortcuts",Object.keys(ot).join(" ")),e.addEventListener("pointermove",n),e.addEventListener("pointerdown",n),e.
addEventListener("pointerleave",o),e.addEventListener("blur",o),e.addEventListener("keydown",s=>{let r=s.altKey||s.ctrlKey||
s.metaKey?void 0:ot[s.key];r!==void 0&&(s.preventDefault(),r(),i.speaking=i.pointed===void 0?void 0:e,t())})};var Dt=({attempt:e=0,generation:t,name:n,peer:o,reason:s=""})=>n==="open"?\`connection \${t} to \${o}\`:e===0?s:\`\${s===""?"":
\`\${s}, \`}\${e} \${e===1?"attempt":"attempts"} failed\`,Le=(e,t,n,o)=>{let s=J(e,t,n),r=D("svg",{role:"img"}),a=Q(["Since","\\
State","Duration","Reason"]);return s.className="wide",s.append(r,a.element),Ae(r,o),(d,u)=>{let g=xe(r,d),w=document.createDocumentFragment();
for(let{end:m,phase:p}of me(u,d)){let y=g.x(p.at),T=Math.max(2,g.x(m)-y),[R,P]=oe[p.name],k={x:y,y:j,width:T,height:g.low-
j-2};w.append(D("rect",{...k,fill:\`var(--\${P})\`})),T>R.length*6.8+8&&w.append(D("text",{class:"on",x:y+6,y:(j+g.low)/2+3},
R))}ve(w,g,d),$e(w,g),r.replaceChildren(w);let f=u[u.length-1]?.name??"no data";if(i.speaking===r){i.speaking=void 0;let m=me(
u,d).find(({end:p,phase:y})=>y.at<=i.pointed&&i.pointed<=p);L(\`\${N(i.pointed)}: \${m===void 0?"no data":oe[m.phase.name][0]}\\
.\`)}r.setAttribute("aria-label",\`\${e}, \${d.words}. Now: \${f}. The table lists the latest states.\`);let c=u.map((m,p)=>({
phase:m,end:u[p+1]?.at??d.to})).slice(-6).reverse();c.forEach(({end:m,phase:p},y)=>{let[T,R,P,k]=a.row(y);h(T,N(p.at)),h(
R,...oe[p.name]),h(P,F(m-p.at)),h(k,Dt(p))}),a.limit(c.length)}};var Fe=e=>ne.map((t,n)=>({name:t,value:({pools:o})=>o[n]?.[e]})),fe=(e,t)=>t.map((n,o)=>({name:n,value:s=>s[e]?.[o]})),rt=[
"median","p95","p99"],at={title:"Channels in use",unit:"by kind",format:x,series:Fe(0),idle:Fe(1),hasLimit:!0},it={title:"\\
Borrowers waiting",unit:"by kind",format:x,series:Fe(2)},lt={title:"Publisher",unit:"messages",format:x,series:fe("publi\\
sher",["in flight","waiting"]),hasFlow:!0},dt={title:"Published",unit:"per second",format:Z,series:fe("published",["conf\\
irmed","failed"])},ct={title:"Time to confirm",format:de,series:fe("confirming",rt),isLogarithmic:!0},ut={title:"Consume\\
d",unit:"per second",format:Z,series:fe("consumed",["delivered","acknowledged","otherwise settled"])},mt={title:"Time in\\
 handlers",format:de,series:fe("handling",rt),isLogarithmic:!0},Pe=[{colour:"var(--a)",dashes:"",key:""},{colour:"var(--\\
b)",dashes:"6 3",key:" dash"},{colour:"var(--c)",dashes:"2 3",key:" dot"}],Ht=30,G=e=>e!==void 0,It=e=>{if(!(e>0))return 1;
let t=Math.pow(10,Math.floor(Math.log10(e))),n=e/t;return([1,2,4,6,8].find(o=>n<=o)??10)*t},Ot=(e,t,n)=>({ticks:e===1&&t?
[0,1]:[0,e/2,e],y:o=>n-o/e*(n-j)}),Vt=(e,t,n)=>{let o=Math.floor(Math.log10(t>0?Math.max(e,.01):1)),s=Math.max(o+1,Math.
ceil(Math.log10(Math.max(t,.01)))),r=s-o>3?2:1,a=[];for(let d=o;d<=s;d+=r)a.push(Math.pow(10,d));return{ticks:a,y:d=>n-(Math.
log10(Math.max(d,.01))-o)/(s-o)*(n-j)}},jt=(e,t,n)=>{for(let{end:o,phase:s}of me(i.data.phases,n)){if(s.name==="open")continue;
let r=t.x(s.at),a={x:r,y:j,width:Math.max(1,t.x(o)-r),height:t.low-j},d=s.name==="blocked"?"var(--warn)":"var(--shade)";
e.append(D("rect",{...a,fill:d,"fill-opacity":.13}))}},qt=({value:e},t,n,o)=>{let s="",r="",a,d=-1/0,u=()=>{a!==void 0&&
(r+=\`L\${a.end} \${n.low}L\${a.start} \${n.low}Z\`),a=void 0};for(let g of t){let w=e(g);if((!G(w)||!Ee(g.at-d))&&u(),d=g.at,
!G(w))continue;let f=n.x(g.at).toFixed(1),l=\`\${a===void 0?"M":"L"}\${f} \${o(w).toFixed(1)}\`;r+=l,s+=a===void 0?\`\${l}h.1\`:
l,a===void 0?a={start:f,end:f}:a.end=f}return u(),{path:s,area:r}},ft=(e,t,n)=>{let{format:o,hasFlow:s=!1,hasLimit:r=!1,
idle:a,isLogarithmic:d=!1,series:u,title:g,unit:w}=e,f=J(g,w,t),l=f.querySelector("small"),c=D("svg",{role:"img"}),m=Q([
"","now","lowest","highest",...a===void 0?[]:["idle"]]);m.head[0].append(b("span",{class:"vh"},g));let p=u.map(({name:k},A)=>{
let v=b("span",{class:\`key\${Pe[A].key}\`,"aria-hidden":"true"});v.style.borderColor=Pe[A].colour;let[C,...E]=m.row(A);return C.
append(v,k),E}),y=Q(["Time",...u.map(({name:k})=>k)]),T=b("details",{},b("summary",{},"All values",b("span",{class:"vh"},
\` of \${g}\`)));T.append(y.element),T.addEventListener("toggle",n),f.append(c,m.element,T),Ae(c,n);let R=k=>{let A=Math.ceil(
k.length/Ht),v=k.filter((C,E)=>(k.length-1-E)%A===0).reverse();v.forEach((C,E)=>{let[I,...V]=y.row(E);h(I,N(C.at)),u.forEach(
({value:H},X)=>{let q=H(C);h(V[X],G(q)?o(q):"\\u2013")})}),y.limit(v.length)},P=(k,A)=>u.map(({name:v,value:C},E)=>{let I=k.
map(C).filter(G),V=A===void 0?void 0:C(A),H=I.length===0,X=H?void 0:V,q=p[E];[X,H?void 0:Math.min(...I),H?void 0:Math.max(
...I)].forEach((pe,_)=>{G(pe)?h(q[_],o(pe),""):h(q[_],H?_===0?"no data":"":"\\u2013","none")});let le=A===void 0?void 0:a?.[E]?.
value(A);return a!==void 0&&h(q[3],G(le)?o(le):"\\u2013"),\`\${v} \${q[0].textContent}\`});return(k,A,v)=>{let C=r?i.data.hello.
max??void 0:void 0,E=[...P(A,v),...G(C)?[\`at most \${x(C)} per kind\`]:[]];if(s&&l!==null&&i.data.totals!==void 0&&h(l,\`me\\
ssages, \${i.data.totals.flow.toLowerCase()}\`),T.open&&R(A),i.speaking===c){i.speaking=void 0;let M=v===void 0?"no data":
u.map(({name:ee},te)=>\`\${ee} \${p[te][0].textContent}\`).join(", ");L(\`\${N(v?.at??i.pointed??k.to)}: \${M}.\`)}h(m.head[1],i.
pointed===void 0||v===void 0?"now":N(v.at));let I=u.flatMap(({value:M})=>A.map(M).filter(G)),V=Math.max(0,...I),H=xe(c,k),
{low:X,width:q}=H,le=o===x,{ticks:pe,y:_}=d?Vt(Math.min(...I),V,X):Ot(It(Math.max(V,C??0)||(le?1:0)),le,X),B=document.createDocumentFragment();
if(jt(B,H,k),pe.forEach((M,ee)=>{let te={x1:U,x2:q,y1:_(M),y2:_(M)};if(B.append(D("line",{...te,stroke:ee===0?"var(--lin\\
e)":"var(--grid)"})),V>0||G(C)||ee===0&&!d){let he={x:U-6,y:_(M)+4,"text-anchor":"end"};B.append(D("text",he,M===0?"0":o(
M).replace(",000","k")))}}),G(C)){let M={x1:U,x2:q,y1:_(C),y2:_(C)};B.append(D("line",{...M,stroke:"var(--soft)","stroke\\
-dasharray":"2 4"}))}for(let M=u.length-1;M>=0;M--){let{area:ee,path:te}=qt(u[M],A,H,_);if(te==="")continue;let{colour:he,
dashes:Oe}=Pe[M];M===0&&!d&&B.append(D("path",{d:ee,fill:he,"fill-opacity":.14})),B.append(D("path",{d:te,fill:"none",stroke:he,
"stroke-width":1.8,"stroke-linejoin":"round","stroke-linecap":Oe===""?"round":"butt","stroke-dasharray":Oe}))}if(I.length===
0){let M={x:U+(q-U)/2,y:(j+X)/2+4,"text-anchor":"middle"};B.append(D("text",M,"no data"))}ve(B,H,k),$e(B,H),c.replaceChildren(
B);let Tt=w===void 0?g:\`\${g}, \${w}\`;c.setAttribute("aria-label",\`\${Tt}, \${k.words}. Now: \${E.join(", ")}.\`)}};var pt=15e3,Wt=5e3,_t=e=>({name:"lost",title:"Stream lost.",text:\`\${e}Reconnecting.\`}),Bt={name:"sign in",title:"Sign in\\
 again.",text:"The server no longer knows this user: the session has expired. Reload the page to sign in.",isFinal:!0},Ut={
name:"denied",title:"Access denied.",text:"This user may not view the dashboard (403). The page does not try again by it\\
self.",isFinal:!0},Gt=e=>({name:"full",title:"Too many viewers.",text:\`The dashboard has reached its limit of viewers (5\\
03). Close other tabs and windows, or raise limits.viewers. The page tries again every \${F(e*1e3)}.\`}),Kt={name:"buffere\\
d",title:"No event within 15 s.",text:"The server answers, so a proxy on the way probably buffers the stream. Switch buf\\
fering off for this path (nginx: proxy_buffering off), and compression of text/event-stream. The page tries again."},Qt=e=>{
let t="";return n=>{t+=n;let o=t.split(\`

\`);t=o.pop()??"";for(let s of o){let r=/^event: (.*)\\ndata: (.*)$/.exec(s);r!==null&&e(r[1],r[2])}}},ht=e=>{let t=location.
pathname.replace(/[/]+$/,""),n,o,s=0,r=!1,a=()=>{clearTimeout(o),n?.abort(),n=void 0},d=(l,c)=>{a(),e.onStatus(l),r=l.isFinal===
!0,s++,c!==void 0&&(o=setTimeout(f,c))},u=(l="")=>d(_t(l),Math.min(1e3*(s+1),5e3)),g=async l=>{let c=setTimeout(()=>l.abort(),
Wt),m=await fetch(t===""?"/":t,{method:"HEAD",cache:"no-store",redirect:"manual",signal:l.signal}).then(()=>!0,()=>!1);clearTimeout(
c),l===n&&(m?d(Kt,pt):u())},w=async({headers:l,status:c,type:m})=>{let p=(l.get("content-type")??"").startsWith("text/ev\\
ent-stream");if(c===200&&p)return!1;if(c===401||m==="opaqueredirect"||c===200)d(Bt,void 0);else if(c===403)d(Ut,void 0);else if(c===
503&&(l.get("content-type")??"").startsWith("application/problem+json")){let y=Number(l.get("retry-after"))||10;d(Gt(y),
y*1e3)}else u(\`The server, or a proxy, answers \${c}. \`);return!0},f=async()=>{if(a(),document.hidden)return e.onStatus({
name:"hidden"});let l=new AbortController;n=l;let c=!1;o=setTimeout(()=>{g(l)},pt);let m=Qt((p,y)=>{Object.prototype.hasOwnProperty.
call(e.listeners,p)&&e.listeners[p](JSON.parse(y))});try{let p=await fetch(\`\${t}/events\`,{cache:"no-store",redirect:"man\\
ual",signal:l.signal});if(l!==n||await w(p))return;let y=p.body.getReader(),T=new TextDecoder;for(;;){let{done:R,value:P}=await y.
read();if(l!==n)return;if(R)return u();m(T.decode(P,{stream:!0})),c||(s=0),c=!0,clearTimeout(o),o=setTimeout(u,e.silence()),
e.onStatus({name:"live"}),e.onEvents()}}catch{l===n&&u()}};return document.addEventListener("visibilitychange",()=>{if(!r){
if(a(),document.hidden)return e.onStatus({name:"hidden"});s=0,e.onStatus({name:"connecting"}),f()}}),f(),{again:()=>{r=!1,
e.onStatus({name:"connecting"}),f()}}};var W=e=>{let t=b("dd",{},"\\u2013");return S("tiles").append(b("div",{},b("dt",{},e),t)),(n,o="",s="")=>{t.textContent!==
(o===""?n:\`\${n} \${o}\`)&&t.replaceChildren(n,o===""?"":b("small",{},\` \${o}\`)),t.className=s}},gt=5*6e4,yt=()=>{let e=W("C\\
onnection"),t=W("Consumers"),n=W("Channels in use"),o=W("Waiting"),s=W("Published"),r=W("Consumed"),a=W("Time to confirm\\
, p95"),d=[[W("Returned"),"bad"],[W("Dead letters"),"bad"],[W("Redeliveries"),"warn"]],u,g=f=>{let{coarse:l,instance:c,samples:m}=i.
data,p=Math.max(f.at-gt,c?.startedAt??0),y=f;for(let T of[l,m]){let R=T.find(({at:P})=>P>=p);R!==void 0&&R.at<y.at&&(y=R)}
return y},w=()=>{let{table:f}=i.data;if(f===void 0)return;let[l,c]=f.rows.reduce(([m,p],y)=>[m+y.running,p+y.wanted],[0,
0]);c===0?t("none"):l===c?t(x(l),"all running","good"):t(x(l),\`of \${x(c)} running\`,"bad")};return(f,l)=>{let{hello:c,phases:m}=i.
data,p=m[m.length-1];if(p!==void 0){let[A,v]=oe[p.name];e(A,\`for \${F(f.to-p.at)}\`,v)}if(w(),l===void 0)return;let{max:y}=c,
[T=0]=l.pools[0]??[],R=y!==null&&T>=y;n(x(T),y===null?"":\`of \${x(y)}\`,R?"warn":"");let P=l.pools.reduce((A,[,,v])=>A+v,0);
o(x(P),P===1?"borrower":"borrowers",P>0?"warn":""),s(l.published===null?"\\u2013":Z(l.published[0]),"per second"),r(l.consumed===
null?"\\u2013":Z(l.consumed[0]),l.consumed===null?"no data":"per second"),a(l.confirming===null?"\\u2013":de(l.confirming[1]),
l.confirming===null?"no data":"");let k=g(l);if(d.forEach(([A,v],C)=>{let E=l.counts[C]??null;if(E===null)return A("\\u2013",
"no data");let I=Math.max(0,E-(k.counts[C]??0)),V=F(Math.min(gt,l.at-k.at));A(x(I),\`\${I>0?"more ":""}in \${V}, \${x(E)} in\\
 all\`,I>0?v:"")}),l.outbox!==null){let[A,v,C]=l.outbox,E=A===0?"waiting":\`waiting for \${F(v*1e3)}\`;u??(u=W("Outbox")),u(
x(A),C===0?E:\`\${E}, \${x(C)} set aside\`,C>0?"warn":"")}}};var De=0,K=()=>{De===0&&(De=requestAnimationFrame(on))},Jt=nt(),Xt=Ke(K),Yt=Le("Connection","pool and publisher","plot-c\\
onnection",K),en=Le("Consumers\\u2019 connection","while there are consumers","plot-consumers",K),Ie=0,He=e=>ft(e,\`plot-\${Ie++}\`,
K),Se=e=>et(e,\`plot-\${Ie++}\`),vt=[at,it,lt,dt,ct].map(He),$t=[Se(Ze)];vt.push(He(ut),He(mt));$t.push(Se(Je),Se(Xe),Se(Ye));
var tn=Ue(\`plot-\${Ie++}\`),nn=yt(),Y=e=>e[e.length-1],on=()=>{De=0;let{data:e}=i,t=we();i.pointed!==void 0&&i.pointed<t.from&&
(i.pointed=void 0);let n=st(t),o=Me(n,i.pointed??t.to);for(let s of vt)s(t,n,o);for(let s of $t)s(e.totals,t.to);Yt(t,e.
phases),en(t,e.consumers),nn(t,i.pointed===void 0?o:Me(n,t.to)),Xt(t.to),tn(),e.totals!==void 0&&Jt(e.totals,t.to),sn(t.
to),rn(),i.speaking=void 0},sn=e=>{let{hello:t,instance:n,phases:o,totals:s}=i.data;t.name&&h(S("name"),\`AMQP: \${t.name}\`);
let r=Y(o),a=[...o].reverse().find(({peer:f})=>f);if(a!==void 0&&h(S("peer"),\`\${r?.peer?"":"last connected to "}\${a.product}\\
 at \${a.peer}\`),n!==void 0){let{pid:f,startedAt:l,version:c}=n,m=[...c===null?[]:[\`version \${c}\`],...f===null?[]:[\`proce\\
ss \${f}\`],\`up for \${F(e-l)}, since \${N(l)} \${se()}\`];h(S("service"),m.join(", "))}let d=(s?.findings.length??0)+(s?.moreFindings??
0),u=r===void 0||r.name==="open"?"":r.name,g=d===0?"open":\`\${d} \${d===1?"problem":"problems"}\`,w=O.title===void 0?u||g:At[O.
name];document.title=\`\${w} \\xB7 \${S("name").textContent}\`},O={name:"connecting"},Te=0,At={connecting:"connecting",live:"\\
live",hidden:"paused while hidden",lost:"stream lost","sign in":"sign in again",denied:"access denied",full:"too many vi\\
ewers",buffered:"no events"},rn=()=>{let e=O.title!==void 0,t=i.isFrozen&&!e;h(S("stream"),t?\`frozen at \${N(be())}\`:At[O.
name],t?"paused":e?"lost":O.name),S("lost").hidden=!e,h(S("lost-title"),O.title??""),h(S("lost-text"),O.text??""),h(S("a\\
ge"),Te>0?\`The values are from \${N(be())} \${se()}, \${F(Date.now()-Te)} old.\`:"No data was received yet."),S("again").hidden=
O.isFinal!==!0,h(S("again"),O.name==="sign in"?"Reload":"Try again"),document.body.classList.toggle("stale",O.name!=="li\\
ve"&&Te>0)},an=e=>{let t=O;O=e,e.title!==void 0&&e.title!==t.title&&L(\`\${e.title} \${e.text??""}\`),e.name==="live"&&t.title!==
void 0&&L("Stream restored."),K()},ln=({name:e,reason:t},n)=>{e==="open"?L(n.name==="blocked"?"The broker accepts messag\\
es again.":"Connection open."):e==="blocked"?L(\`The broker blocks publishers: \${t}.\`):e==="closed"?L(\`Connection closed \\
permanently: \${t}.\`):L(\`Connection lost: \${t}. Reconnecting.\`)},dn=({name:e,reason:t},n)=>{e==="reconnecting"?L(\`The con\\
sumers\\u2019 connection is lost: \${t}. Reconnecting.\`):e==="closed"?L(\`The consumers\\u2019 connection is closed permanently: \${t}\\
.\`):e==="open"&&n.name==="reconnecting"&&L("The consumers\\u2019 connection is open.")},St=100,ie=0,bt=(e,t,n)=>{let o={...t,
number:t.number+ie},s=Y(e);s!==void 0&&o.number<s.number||(s?.number===o.number&&e.pop(),e.push(o),e.length>St&&e.shift(),
s!==void 0&&s.name!==o.name&&!i.isFrozen&&n(o,s))},wt=(e,t,n)=>{e.length>0&&e.push({number:ie-1,at:n,name:"gone"}),e.push(
...t.map(o=>({...o,number:o.number+ie}))),e.splice(0,e.length-St)},xt=[],Ne=(e,t,n)=>{if(!(t.at<=(Y(e)?.at??-1)))for(e.push(
t);e[0].at<t.at-n;)e.shift()},cn={hello:e=>{let{instance:t,phases:n,...o}=e,s=$.instance;if($.hello=o,$.instance=t,s?.id===
t.id){$.samples.length=$.coarse.length=0;let a=(d,u)=>{let g=d.filter(({number:w})=>w<ie);d.splice(0,d.length,...g,...u.
map(w=>({...w,number:w.number+ie})))};a($.phases,n),a($.consumers,e.consumers);return}s!==void 0&&(ie=Math.max(Y($.phases)?.
number??0,Y($.consumers)?.number??0)+2,L("The service has started again."));let r=Math.min(t.startedAt,Math.max(Y($.samples)?.
at??0,Y($.coarse)?.at??0));wt($.phases,n,r),wt($.consumers,e.consumers,r),$.starts.push(t.startedAt),$.starts.splice(0,$.
starts.length-20),$.table=$.totals=void 0},phase:e=>bt($.phases,e,ln),consumers:e=>bt($.consumers,e,dn),history:e=>{for(let t of e)
Ne($.coarse,t,$.hello.coarseWindow)},coarse:e=>Ne($.coarse,e,$.hello.coarseWindow),sample:e=>{let{interval:t,max:n,window:o}=$.
hello;Ne($.samples,e,o+2*t),!i.isFrozen&&e.pools.forEach(([s],r)=>{n===null||s<n||e.at-(xt[r]??0)<3e4||(xt[r]=e.at,L(\`Al\\
l \${x(n)} \${ne[r]} channels are in use.\`))})},totals:e=>{$.totals=e},table:e=>{$.table=e}},un=ht({listeners:cn,onEvents:()=>{
Te=Date.now(),S("stream").toggleAttribute("data-beat"),K()},onStatus:an,silence:()=>6*$.hello.interval});setInterval(()=>{
O.name!=="live"&&!document.hidden&&K()},1e3);var Ce=(e,t)=>S(e).addEventListener("click",()=>{t(),K()});Ce("freeze",()=>{
i.isFrozen?je():Ve(),h(S("freeze"),i.isFrozen?"Resume":"Freeze")});Ce("zone",()=>{i.isLocal=!i.isLocal,h(S("zone"),\`Time\\
s: \${se()}\`)});Ce("range",()=>{i.isHour=!i.isHour,i.pointed=void 0,h(S("range"),i.isHour?"Range: 1 hour":"Range: 5 minut\\
es")});Ce("again",()=>{O.name==="sign in"?location.reload():un.again()});new ResizeObserver(K).observe(document.body);K();})();
`
