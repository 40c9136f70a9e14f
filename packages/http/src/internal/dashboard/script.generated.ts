// Made by `npm run client` from packages/http/client/main.ts. Do not edit.
export const script = `"use strict";(()=>{var x={hello:{name:null,window:3e5,interval:1e3,coarseWindow:36e5,coarseInterval:1e4,queueCounts:null,max:null},instance:void 0,
starts:[],coarse:[],samples:[],phases:[],consumers:[],totals:void 0,table:void 0},l={data:x,isFrozen:!1,isHour:!1,isLocal:!1,
pointed:void 0,speaking:void 0},De=()=>{let{coarse:e,consumers:t,phases:n,samples:o,starts:s}=x;l.data={...x,starts:[...s],
coarse:[...e],samples:[...o],phases:[...n],consumers:[...t]},l.isFrozen=!0},Ie=()=>{l.data=x,l.isFrozen=!1},te=["regular",
"confirm","transaction"];var ne={connecting:["connecting","warn"],open:["open","good"],blocked:["blocked","warn"],reconnecting:["reconnecting","b\\
ad"],closed:["closed","bad"],none:["none","soft"],gone:["service gone","soft"]},je={running:["running","good"],starting:[
"starting","warn"],reconnecting:["reconnecting","warn"],waiting:["waiting for its queue","warn"],ended:["ended","bad"],stopped:[
"stopped","soft"]},ze=new Intl.NumberFormat("en",{maximumFractionDigits:0}),$t=new Intl.NumberFormat("en",{maximumFractionDigits:1}),
Oe=new Intl.NumberFormat("en",{maximumSignificantDigits:3}),v=e=>ze.format(e),K=e=>(e>0&&e<100?$t:ze).format(e),de=e=>e>=
1e3?\`\${Oe.format(e/1e3)} s\`:\`\${Oe.format(e)} ms\`,P=e=>{let t=Math.max(0,Math.round(e/1e3));return t<60?\`\${t}\\xA0s\`:t<3600?
\`\${Math.floor(t/60)}\\xA0min \${t%60}\\xA0s\`:t<172800?\`\${Math.floor(t/3600)}\\xA0h \${Math.floor(t%3600/60)}\\xA0min\`:\`\${Math.
floor(t/86400)}\\xA0days\`},he=e=>String(e).padStart(2,"0"),Ve=e=>new Date(l.isLocal?e-new Date(e).getTimezoneOffset()*6e4:
e),Ce=e=>e.toISOString().slice(0,10),H=e=>{let t=Ve(e),n=\`\${he(t.getUTCHours())}:\${he(t.getUTCMinutes())}:\${he(t.getUTCSeconds())}\`;
return Ce(t)===Ce(Ve(Date.now()))?n:\`\${Ce(t)} \${n}\`},oe=()=>{if(!l.isLocal)return"UTC";let e=-new Date().getTimezoneOffset(),
[t,n]=[Math.floor(Math.abs(e)/60),Math.abs(e)%60],o=\`UTC\${e<0?"\\u2212":"+"}\${t}\${n===0?"":\`:\${he(n)}\`}\`,s=Intl.DateTimeFormat().
resolvedOptions().timeZone;return s===void 0||s==="UTC"?o:\`\${s} (\${o})\`},ge=e=>e.replace(/[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]/g,
t=>\`\\\\u\${t.charCodeAt(0).toString(16).padStart(4,"0")}\`);var qe=(e,t,n)=>{for(let[o,s]of Object.entries(t))e.setAttribute(o,String(s));return e.append(...n),e},g=(e,t={},...n)=>qe(
document.createElement(e),t,n),F=(e,t,...n)=>qe(document.createElementNS("http://www.w3.org/2000/svg",e),t,n),T=e=>{let t=document.
getElementById(e);if(t===null)throw new Error(\`no element has the id \${e}\`);return t},f=(e,t,n)=>{e.textContent!==t&&(e.
textContent=t),n!==void 0&&e.className!==n&&(e.className=n)},L=e=>{let t=T("say");for(t.append(g("p",{},e));t.children.length>
5;)t.firstChild?.remove()},At=33,Z=(e,t)=>{let n=ge(t);if(e.textContent===n&&e.childElementCount===1)return;let o=g("bdi",
{},n);if(n.length<At)return e.replaceChildren(o);let s=g("button",{type:"button",class:"name","aria-expanded":"false",title:n},
o);s.addEventListener("click",()=>{s.setAttribute("aria-expanded",String(s.getAttribute("aria-expanded")==="false"))}),e.
replaceChildren(s)},J=e=>{let t=e.map(s=>g("th",{scope:"col"},s)),n=g("tbody"),o=[];return{element:g("table",{},g("thead",
{},g("tr",{},...t)),n),head:t,row:s=>{let r=o[s];if(r!==void 0)return r;let a=e.map((d,m)=>m===0?g("th",{scope:"row"}):g(
"td"));return n.append(g("tr",{},...a)),o.push(a),a},limit:s=>{for(let[r]of o.splice(s))r?.parentElement?.remove()}}},se=(e,t,n)=>{
let o=t===void 0?[e]:[\`\${e} \`,g("small",{},t)],s=g("figure",{"aria-labelledby":n},g("h2",{id:n},...o));return T("plots").
append(s),s};var St=[{title:"Queue",fill:(e,{queue:t})=>Z(e,t)},{title:"Consumer",fill:(e,{name:t})=>Z(e,t)},{title:"State",fill:(e,{
since:t,state:n},o)=>{let[s,r]=je[n];f(e,\`\${s} for \${P(o-t)}\`,r)}},{title:"Running",fill:(e,{running:t,wanted:n})=>f(e,\`\${v(
t)} of \${v(n)}\`,t<n?"bad":"")},{title:"In flight",fill:(e,{buffered:t,inFlight:n})=>f(e,t===0?v(n):\`\${v(n)} + \${v(t)} wa\\
iting\`)},{title:"Per second",fill:(e,t)=>f(e,t.rate===null?"\\u2013":K(t.rate))},{title:"Last error",fill:(e,{error:t})=>Z(
e,t===null?"\\u2013":\`\${t[0]} at \${H(t[1])}\`)},{title:"Last end",fill:(e,{end:t})=>f(e,t===null?"\\u2013":\`\${t[0]} at \${H(
t[2])}: \${t[1]}\`,t!==null&&t[0]==="failed"?"bad":"")},{title:"Ready in the queue",isOfBroker:!0,fill:(e,{broker:t})=>{t===
null?f(e,"\\u2013",""):t==="missing"?f(e,"no such queue","bad"):f(e,\`\${v(t[0])} at \${H(t[2])}\`,"")}},{title:"Consumers of\\
 the queue",isOfBroker:!0,fill:(e,{broker:t})=>{t===null||t==="missing"?f(e,"\\u2013",""):f(e,v(t[1]),t[1]===0?"warn":"")}}],
_e=e=>{let t=T("consumers"),n=T("filter"),o=T("filtered"),s=g("tbody",{role:"rowgroup"}),r=g("tr",{role:"row"}),a=g("tab\\
le",{role:"table","aria-labelledby":"consumers-title"});a.append(g("thead",{role:"rowgroup"},r),s),t.append(a);let d=[],
m=[];n.addEventListener("input",e);let h=u=>{u.length!==m.length&&(m=u,r.replaceChildren(...u.map(({title:i})=>g("th",{scope:"\\
col",role:"columnheader"},i))),d.length=0,s.replaceChildren())},b=u=>{let i=d[u];if(i!==void 0)return i;let c=m.map(({title:y},p)=>p===
0?g("th",{scope:"row",role:"rowheader","data-title":y}):g("td",{role:"cell","data-title":y}));return s.append(g("tr",{role:"\\
row"},...c)),d.push(c),c};return u=>{let{hello:i,table:c}=l.data;if(c===void 0)return;h(St.filter(({isOfBroker:C=!1})=>!C||
i.queueCounts!==null));let y=n.value.trim().toLowerCase(),p=c.rows.filter(({name:C,queue:E})=>\`\${E}
\${C}\`.toLowerCase().includes(y));p.forEach((C,E)=>{let $=b(E);m.forEach(({fill:A},R)=>{let S=$[R];A(S,C,u),S.toggleAttribute(
"data-none",S.textContent==="\\u2013"||R===1&&C.name===C.queue)})});for(let[C]of d.splice(p.length))C?.parentElement?.remove();
a.hidden=p.length===0;let w=c.rows.length+c.more,M=c.more===0?"":\`; \${v(c.more)} more are not listed\`;f(o,w===0?"There a\\
re no consumers.":y===""?\`\${v(c.rows.length)} \${c.rows.length===1?"row":"rows"}\${M}.\`:\`\${v(p.length)} of \${v(c.rows.length)}\\
 rows match\${M}.\`)}};var We=e=>Object.entries(e).map(([t,n])=>[t.replace("timedOut","timed out").replace(/_/g," "),[n]]),Be={title:"Published\\
 since start",tables:({published:e})=>[{head:["Outcome","messages"],rows:We(e)}]},Ue={title:"Channels and deliveries sin\\
ce start",tables:({pools:e,settled:t})=>{let n={head:["Channels","opened","recycled","discarded","timeouts"],rows:te.map(
(o,s)=>[o,e[s]??[]])};return t===null?[n]:[n,{head:["Deliveries","count"],rows:We(t)}]}},Ge={title:"Failures by queue an\\
d reason since start",tables:({failures:e})=>[{head:["Handlers","failures"],rows:e.length===0?[["none",[0]]]:e.map(([t,n,
o])=>[\`\${t}: \${n}\`,[o]])}]},Ke={title:"Dead letters by queue and reason since start",tables:({deadLetters:e},t)=>[{head:[
"Failed in","dead letters","first","last"],rows:e.length===0?[["none",[0,"",""]]]:e.map(([n,o,s,r,a])=>[\`\${n}: \${o}\`,[s,
\`\${P(t-r)} ago\`,\`\${P(t-a)} ago\`]])}],advice:"To see why: npx effect-amqp peek, with the name of the dead-letter queue. T\\
o bring them back: npx effect-amqp redrive."},Ze=({advice:e,tables:t,title:n},o)=>{let s=se(n,void 0,o),r=g("p",{class:"\\
none"},"no data");s.append(r);let a=[];return(d,m)=>{d!==void 0&&(r.remove(),t(d,m).forEach(({head:h,rows:b},u)=>{let i=a[u];
i===void 0&&(i=J(h),a.push(i),s.append(i.element),e!==void 0&&s.append(g("p",{class:"advice"},e))),b.forEach(([c,y],p)=>{
let[w,...M]=i.row(p);Z(w,c),M.forEach((C,E)=>{let $=y[E]??0;f(C,typeof $=="string"?$:v($))})}),i.limit(b.length)}))}};var Ct=({subject:e,what:t})=>e===null?t:\`\${ge(e)}: \${t}\`,Rt=()=>{let[e,t,n,o]=[g("span"),g("b"),g("span"),g("span")];return{
element:g("li",{},e,t," ",n," ",o),subject:e,what:t,since:n,todo:o}},Qe=(e,t)=>e===null?"":\`since \${H(e)} \${oe()}, for \${P(
t-e)}.\`,Je=()=>{let e=T("findings"),t=[],n=new Set,o=r=>{let a=t[r];return a===void 0&&(a=Rt(),t.push(a),e.append(a.element)),
a},s=r=>{for(let{element:a}of t.splice(r))a.remove()};return({calmSince:r,findings:a,moreFindings:d},m)=>{a.forEach((u,i)=>{
let{element:c,since:y,subject:p,todo:w,what:M}=o(i);c.className=u.notReady?"bad":"warn",u.subject===null?p.replaceChildren():
Z(p,u.subject),f(M,\`\${u.subject===null?"":": "}\${u.what}\${u.notReady?" (not ready)":""}\`),f(y,Qe(u.since,m)),f(w,u.todo)});
let h=a.length;if(a.length===0){let{element:u,since:i,subject:c,todo:y,what:p}=o(h++);u.className="good",c.replaceChildren(),
f(p,"Nothing is wrong"),f(i,Qe(r,m)),f(y,"")}else if(d>0){let{element:u,since:i,subject:c,todo:y,what:p}=o(h++);u.className=
"warn",c.replaceChildren(),f(p,\`And \${d} more\`),f(i,""),f(y,"")}s(h);let b=new Map(a.map(u=>[\`\${u.rule} \${u.subject??""}\`,
Ct(u)]));for(let[u,i]of b)n.has(u)||L(\`\${i}.\`);n.size>0&&b.size===0&&L("Nothing is wrong any more."),n=new Set(b.keys())}};var ce=e=>e[e.length-1],ye=()=>{let{coarse:e,phases:t,samples:n}=l.data;return Math.max(ce(t)?.at??0,ce(n)?.at??0,ce(e)?.
at??0)},re=6e4,be=()=>{let{coarse:e,hello:t,samples:n}=l.data,o=ye(),s=o-Math.min(n[0]?.at??o,e[0]?.at??o),r=l.isHour?[10*
re,30*re,t.coarseWindow]:[re,2*re,t.window],a=r.find(m=>s<=m)??r[2],d=a===re?"the last minute":\`the last \${a/re} minutes\`;
return{from:o-a,to:o,words:d}},Ye=e=>{let{coarse:t,hello:n,samples:o}=l.data,{coarseInterval:s}=n,r=({at:h})=>h>=e.from&&
h<=e.to;if(l.isHour){let h=ce(t)?.at??0;return[...t.filter(r),...o.filter(b=>b.at>h&&r(b)).slice(-1)]}let a=o.filter(r),
d=[],m=0;for(let h of t){if(!r(h))continue;for(;m<a.length&&a[m].at<=h.at;)d.push(a[m++]);(!((ce(d)?.at??0)>h.at-s/2||(a[m]?.
at??1/0)<h.at+1500)||d.length===0)&&d.push(h)}for(;m<a.length;)d.push(a[m++]);return d},Re=e=>e<2.5*l.data.hello.coarseInterval,
Me=(e,t)=>{let n;for(let o of e)(n===void 0||Math.abs(o.at-t)<Math.abs(n.at-t))&&(n=o);return n!==void 0&&Re(Math.abs(n.
at-t))?n:void 0},W=46,V=8,Mt=16,we=(e,t)=>{let[n,o]=[e.clientWidth,e.clientHeight];return{width:n,height:o,low:o-Mt,x:s=>W+
Math.max(0,s-t.from)/(t.to-t.from)*(n-W)}},Et={1:20,2:30,5:60,10:120,30:600,60:900},xe=(e,t,n)=>{let o=(n.to-n.from)/1e3,
s=Et[o/60]??o/5;for(let r=0;r<o;r+=s){let a={x:t.x(n.to-r*1e3),y:t.height-2,"text-anchor":r===0?"end":"middle"};e.append(
F("text",a,r===0?"now":\`\\u2212\${r%60===0?\`\${r/60} min\`:\`\${r} s\`}\`))}for(let r of l.data.starts){if(r<n.from||r>n.to)continue;
let a=t.x(r);e.append(F("line",{x1:a,x2:a,y1:0,y2:t.low,stroke:"var(--text)","stroke-dasharray":"1 2"}),...t.height>80?[
F("text",{class:"start",x:Math.min(a+3,t.width-30),y:V+2},"start")]:[])}},ve=(e,t)=>{if(l.pointed===void 0)return;let n=t.
x(l.pointed);e.append(F("line",{class:"pointer",x1:n,x2:n,y1:V,y2:t.low,stroke:"var(--soft)"}))},ue=(e,t)=>e.map((n,o)=>({
phase:n,end:Math.min(e[o+1]?.at??t.to,t.to)})).filter(({end:n,phase:o})=>n>=t.from&&o.at<=t.to),ae=e=>{let t=be(),n=l.isHour?
l.data.hello.coarseInterval:l.data.hello.interval,o=(l.pointed??t.to)+e*n;l.pointed=Math.min(t.to,Math.max(t.from,o))},Xe={
ArrowLeft:()=>ae(-1),ArrowRight:()=>ae(1),PageDown:()=>ae(-10),PageUp:()=>ae(10),Home:()=>ae(-1/0),End:()=>ae(1/0),Escape:()=>{
l.pointed=void 0}},$e=(e,t)=>{let n=s=>{let r=e.getBoundingClientRect(),a=be(),d=a.from+(s.clientX-r.left-W)/(r.width-W)*
(a.to-a.from);l.pointed=d>a.to||d<a.from?void 0:d,t()},o=()=>{l.pointed=void 0,t()};e.setAttribute("tabindex","0"),e.setAttribute(
"aria-keyshortcuts",Object.keys(Xe).join(" ")),e.addEventListener("pointermove",n),e.addEventListener("pointerdown",n),e.
addEventListener("pointerleave",o),e.addEventListener("blur",o),e.addEventListener("keydown",s=>{let r=s.altKey||s.ctrlKey||
s.metaKey?void 0:Xe[s.key];r!==void 0&&(s.preventDefault(),r(),l.speaking=l.pointed===void 0?void 0:e,t())})};var kt=({attempt:e=0,generation:t,name:n,peer:o,reason:s=""})=>n==="open"?\`connection \${t} to \${o}\`:e===0?s:\`\${s===""?"":
\`\${s}, \`}\${e} \${e===1?"attempt":"attempts"} failed\`,Ee=(e,t,n,o)=>{let s=se(e,t,n),r=F("svg",{role:"img"}),a=J(["Since",
"State","Duration","Reason"]);return s.className="wide",s.append(r,a.element),$e(r,o),(d,m)=>{let h=we(r,d),b=document.createDocumentFragment();
for(let{end:y,phase:p}of ue(m,d)){let w=h.x(p.at),M=Math.max(2,h.x(y)-w),[C,E]=ne[p.name],$={x:w,y:V,width:M,height:h.low-
V-2};b.append(F("rect",{...$,fill:\`var(--\${E})\`})),M>C.length*6.8+8&&b.append(F("text",{class:"on",x:w+6,y:(V+h.low)/2+3},
C))}xe(b,h,d),ve(b,h),r.replaceChildren(b);let u=m[m.length-1]?.name??"no data";if(l.speaking===r){l.speaking=void 0;let y=ue(
m,d).find(({end:p,phase:w})=>w.at<=l.pointed&&l.pointed<=p);L(\`\${H(l.pointed)}: \${y===void 0?"no data":ne[y.phase.name][0]}\\
.\`)}r.setAttribute("aria-label",\`\${e}, \${d.words}. Now: \${u}. The table lists the latest states.\`);let c=m.map((y,p)=>({
phase:y,end:m[p+1]?.at??d.to})).slice(-6).reverse();c.forEach(({end:y,phase:p},w)=>{let[M,C,E,$]=a.row(w);f(M,H(p.at)),f(
C,...ne[p.name]),f(E,P(y-p.at)),f($,kt(p))}),a.limit(c.length)}};var Le=e=>te.map((t,n)=>({name:t,value:({pools:o})=>o[n]?.[e]})),me=(e,t)=>t.map((n,o)=>({name:n,value:s=>s[e]?.[o]})),et=[
"median","p95","p99"],tt={title:"Channels in use",unit:"by kind",format:v,series:Le(0),idle:Le(1),hasLimit:!0},nt={title:"\\
Borrowers waiting",unit:"by kind",format:v,series:Le(2)},ot={title:"Publisher",unit:"messages",format:v,series:me("publi\\
sher",["in flight","waiting"]),hasFlow:!0},st={title:"Published",unit:"per second",format:K,series:me("published",["conf\\
irmed","failed"])},rt={title:"Time to confirm",format:de,series:me("confirming",et),isLogarithmic:!0},at={title:"Consume\\
d",unit:"per second",format:K,series:me("consumed",["delivered","acknowledged","otherwise settled"])},it={title:"Time in\\
 handlers",format:de,series:me("handling",et),isLogarithmic:!0},ke=[{colour:"var(--a)",dashes:"",key:""},{colour:"var(--\\
b)",dashes:"6 3",key:" dash"},{colour:"var(--c)",dashes:"2 3",key:" dot"}],Lt=30,B=e=>e!==void 0,Pt=e=>{if(!(e>0))return 1;
let t=Math.pow(10,Math.floor(Math.log10(e))),n=e/t;return([1,2,4,6,8].find(o=>n<=o)??10)*t},Ft=(e,t,n)=>({ticks:e===1&&t?
[0,1]:[0,e/2,e],y:o=>n-o/e*(n-V)}),Nt=(e,t,n)=>{let o=Math.floor(Math.log10(t>0?Math.max(e,.01):1)),s=Math.max(o+1,Math.
ceil(Math.log10(Math.max(t,.01)))),r=s-o>3?2:1,a=[];for(let d=o;d<=s;d+=r)a.push(Math.pow(10,d));return{ticks:a,y:d=>n-(Math.
log10(Math.max(d,.01))-o)/(s-o)*(n-V)}},Ht=(e,t,n)=>{for(let{end:o,phase:s}of ue(l.data.phases,n)){if(s.name==="open")continue;
let r=t.x(s.at),a={x:r,y:V,width:Math.max(1,t.x(o)-r),height:t.low-V},d=s.name==="blocked"?"var(--warn)":"var(--shade)";
e.append(F("rect",{...a,fill:d,"fill-opacity":.13}))}},Dt=({value:e},t,n,o)=>{let s="",r="",a,d=-1/0,m=()=>{a!==void 0&&
(r+=\`L\${a.end} \${n.low}L\${a.start} \${n.low}Z\`),a=void 0};for(let h of t){let b=e(h);if((!B(b)||!Re(h.at-d))&&m(),d=h.at,
!B(b))continue;let u=n.x(h.at).toFixed(1),i=\`\${a===void 0?"M":"L"}\${u} \${o(b).toFixed(1)}\`;r+=i,s+=a===void 0?\`\${i}h.1\`:
i,a===void 0?a={start:u,end:u}:a.end=u}return m(),{path:s,area:r}},lt=(e,t,n)=>{let{format:o,hasFlow:s=!1,hasLimit:r=!1,
idle:a,isLogarithmic:d=!1,series:m,title:h,unit:b}=e,u=se(h,b,t),i=u.querySelector("small"),c=F("svg",{role:"img"}),y=J(
["","now","lowest","highest",...a===void 0?[]:["idle"]]);y.head[0].append(g("span",{class:"vh"},h));let p=m.map(({name:$},A)=>{
let R=g("span",{class:\`key\${ke[A].key}\`,"aria-hidden":"true"});R.style.borderColor=ke[A].colour;let[S,...N]=y.row(A);return S.
append(R,$),N}),w=J(["Time",...m.map(({name:$})=>$)]),M=g("details",{},g("summary",{},"All values",g("span",{class:"vh"},
\` of \${h}\`)));M.append(w.element),M.addEventListener("toggle",n),u.append(c,y.element,M),$e(c,n);let C=$=>{let A=Math.ceil(
$.length/Lt),R=$.filter((S,N)=>($.length-1-N)%A===0).reverse();R.forEach((S,N)=>{let[I,...G]=w.row(N);f(I,H(S.at)),m.forEach(
({value:O},Q)=>{let j=O(S);f(G[Q],B(j)?o(j):"\\u2013")})}),w.limit(R.length)},E=($,A)=>m.map(({name:R,value:S},N)=>{let I=$.
map(S).filter(B),G=A===void 0?void 0:S(A),O=I.length===0,Q=O?void 0:G,j=p[N];[Q,O?void 0:Math.min(...I),O?void 0:Math.max(
...I)].forEach((fe,q)=>{B(fe)?f(j[q],o(fe),""):f(j[q],O?q===0?"no data":"":"\\u2013","none")});let le=A===void 0?void 0:a?.[N]?.
value(A);return a!==void 0&&f(j[3],B(le)?o(le):"\\u2013"),\`\${R} \${j[0].textContent}\`});return($,A,R)=>{let S=r?l.data.hello.
max??void 0:void 0,N=[...E(A,R),...B(S)?[\`at most \${v(S)} per kind\`]:[]];if(s&&i!==null&&l.data.totals!==void 0&&f(i,\`me\\
ssages, \${l.data.totals.flow.toLowerCase()}\`),M.open&&C(A),l.speaking===c){l.speaking=void 0;let k=R===void 0?"no data":
m.map(({name:Y},ee)=>\`\${Y} \${p[ee][0].textContent}\`).join(", ");L(\`\${H(R?.at??l.pointed??$.to)}: \${k}.\`)}f(y.head[1],l.pointed===
void 0||R===void 0?"now":H(R.at));let I=m.flatMap(({value:k})=>A.map(k).filter(B)),G=Math.max(0,...I),O=we(c,$),{low:Q,width:j}=O,
le=o===v,{ticks:fe,y:q}=d?Nt(Math.min(...I),G,Q):Ft(Pt(Math.max(G,S??0)||(le?1:0)),le,Q),_=document.createDocumentFragment();
if(Ht(_,O,$),fe.forEach((k,Y)=>{let ee={x1:W,x2:j,y1:q(k),y2:q(k)};if(_.append(F("line",{...ee,stroke:Y===0?"var(--line)":
"var(--grid)"})),G>0||B(S)||Y===0&&!d){let pe={x:W-6,y:q(k)+4,"text-anchor":"end"};_.append(F("text",pe,k===0?"0":o(k).replace(
",000","k")))}}),B(S)){let k={x1:W,x2:j,y1:q(S),y2:q(S)};_.append(F("line",{...k,stroke:"var(--soft)","stroke-dasharray":"\\
2 4"}))}for(let k=m.length-1;k>=0;k--){let{area:Y,path:ee}=Dt(m[k],A,O,q);if(ee==="")continue;let{colour:pe,dashes:He}=ke[k];
k===0&&!d&&_.append(F("path",{d:Y,fill:pe,"fill-opacity":.14})),_.append(F("path",{d:ee,fill:"none",stroke:pe,"stroke-wi\\
dth":1.8,"stroke-linejoin":"round","stroke-linecap":He===""?"round":"butt","stroke-dasharray":He}))}if(I.length===0){let k={
x:W+(j-W)/2,y:(V+Q)/2+4,"text-anchor":"middle"};_.append(F("text",k,"no data"))}xe(_,O,$),ve(_,O),c.replaceChildren(_);let vt=b===
void 0?h:\`\${h}, \${b}\`;c.setAttribute("aria-label",\`\${vt}, \${$.words}. Now: \${N.join(", ")}.\`)}};var dt=15e3,Ot=5e3,Vt=e=>({name:"lost",title:"Stream lost.",text:\`\${e}Reconnecting.\`}),jt={name:"sign in",title:"Sign in\\
 again.",text:"The server no longer knows this user: the session has expired. Reload the page to sign in.",isFinal:!0},zt={
name:"denied",title:"Access denied.",text:"This user may not view the dashboard (403). The page does not try again by it\\
self.",isFinal:!0},qt=e=>({name:"full",title:"Too many viewers.",text:\`The dashboard has reached its limit of viewers (5\\
03). Close other tabs and windows, or raise limits.viewers. The page tries again every \${P(e*1e3)}.\`}),_t={name:"buffere\\
d",title:"No event within 15 s.",text:"The server answers, so a proxy on the way probably buffers the stream. Switch buf\\
fering off for this path (nginx: proxy_buffering off), and compression of text/event-stream. The page tries again."},Wt=e=>{
let t="";return n=>{t+=n;let o=t.split(\`

\`);t=o.pop()??"";for(let s of o){let r=/^event: (.*)\\ndata: (.*)$/.exec(s);r!==null&&e(r[1],r[2])}}},ct=e=>{let t=location.
pathname.replace(/[/]+$/,""),n,o,s=0,r=!1,a=()=>{clearTimeout(o),n?.abort(),n=void 0},d=(i,c)=>{a(),e.onStatus(i),r=i.isFinal===
!0,s++,c!==void 0&&(o=setTimeout(u,c))},m=(i="")=>d(Vt(i),Math.min(1e3*(s+1),5e3)),h=async i=>{let c=setTimeout(()=>i.abort(),
Ot),y=await fetch(t===""?"/":t,{method:"HEAD",cache:"no-store",redirect:"manual",signal:i.signal}).then(()=>!0,()=>!1);clearTimeout(
c),i===n&&(y?d(_t,dt):m())},b=async({headers:i,status:c,type:y})=>{let p=(i.get("content-type")??"").startsWith("text/ev\\
ent-stream");if(c===200&&p)return!1;if(c===401||y==="opaqueredirect"||c===200)d(jt,void 0);else if(c===403)d(zt,void 0);else if(c===
503&&(i.get("content-type")??"").startsWith("application/problem+json")){let w=Number(i.get("retry-after"))||10;d(qt(w),
w*1e3)}else m(\`The server, or a proxy, answers \${c}. \`);return!0},u=async()=>{if(a(),document.hidden)return e.onStatus({
name:"hidden"});let i=new AbortController;n=i;let c=!1;o=setTimeout(()=>{h(i)},dt);let y=Wt((p,w)=>{Object.prototype.hasOwnProperty.
call(e.listeners,p)&&e.listeners[p](JSON.parse(w))});try{let p=await fetch(\`\${t}/events\`,{cache:"no-store",redirect:"man\\
ual",signal:i.signal});if(i!==n||await b(p))return;let w=p.body.getReader(),M=new TextDecoder;for(;;){let{done:C,value:E}=await w.
read();if(i!==n)return;if(C)return m();y(M.decode(E,{stream:!0})),c||(s=0),c=!0,clearTimeout(o),o=setTimeout(m,e.silence()),
e.onStatus({name:"live"}),e.onEvents()}}catch{i===n&&m()}};return document.addEventListener("visibilitychange",()=>{if(!r){
if(a(),document.hidden)return e.onStatus({name:"hidden"});s=0,e.onStatus({name:"connecting"}),u()}}),u(),{again:()=>{r=!1,
e.onStatus({name:"connecting"}),u()}}};var z=e=>{let t=g("dd",{},"\\u2013");return T("tiles").append(g("div",{},g("dt",{},e),t)),(n,o="",s="")=>{t.textContent!==
(o===""?n:\`\${n} \${o}\`)&&t.replaceChildren(n,o===""?"":g("small",{},\` \${o}\`)),t.className=s}},ut=5*6e4,mt=()=>{let e=z("C\\
onnection"),t=z("Consumers"),n=z("Channels in use"),o=z("Waiting"),s=z("Published"),r=z("Consumed"),a=z("Time to confirm\\
, p95"),d=[[z("Returned"),"bad"],[z("Dead letters"),"bad"],[z("Redeliveries"),"warn"]],m,h=u=>{let{coarse:i,instance:c,samples:y}=l.
data,p=Math.max(u.at-ut,c?.startedAt??0),w=u;for(let M of[i,y]){let C=M.find(({at:E})=>E>=p);C!==void 0&&C.at<w.at&&(w=C)}
return w},b=()=>{let{table:u}=l.data;if(u===void 0)return;let[i,c]=u.rows.reduce(([y,p],w)=>[y+w.running,p+w.wanted],[0,
0]);c===0?t("none"):i===c?t(v(i),"all running","good"):t(v(i),\`of \${v(c)} running\`,"bad")};return(u,i)=>{let{hello:c,phases:y}=l.
data,p=y[y.length-1];if(p!==void 0){let[A,R]=ne[p.name];e(A,\`for \${P(u.to-p.at)}\`,R)}if(b(),i===void 0)return;let{max:w}=c,
[M=0]=i.pools[0]??[],C=w!==null&&M>=w;n(v(M),w===null?"":\`of \${v(w)}\`,C?"warn":"");let E=i.pools.reduce((A,[,,R])=>A+R,0);
o(v(E),E===1?"borrower":"borrowers",E>0?"warn":""),s(i.published===null?"\\u2013":K(i.published[0]),"per second"),r(i.consumed===
null?"\\u2013":K(i.consumed[0]),i.consumed===null?"no data":"per second"),a(i.confirming===null?"\\u2013":de(i.confirming[1]),
i.confirming===null?"no data":"");let $=h(i);if(d.forEach(([A,R],S)=>{let N=i.counts[S]??null;if(N===null)return A("\\u2013",
"no data");let I=Math.max(0,N-($.counts[S]??0)),G=P(Math.min(ut,i.at-$.at));A(v(I),\`\${I>0?"more ":""}in \${G}, \${v(N)} in\\
 all\`,I>0?R:"")}),i.outbox!==null){let[A,R,S]=i.outbox,N=A===0?"waiting":\`waiting for \${P(R*1e3)}\`;m??(m=z("Outbox")),m(
v(A),S===0?N:\`\${N}, \${v(S)} set aside\`,S>0?"warn":"")}}};var Fe=0,U=()=>{Fe===0&&(Fe=requestAnimationFrame(Jt))},Ut=Je(),Gt=_e(U),Kt=Ee("Connection","pool and publisher","plot-c\\
onnection",U),Zt=Ee("Consumers\\u2019 connection","while there are consumers","plot-consumers",U),gt=0,Ne=e=>lt(e,\`plot-\${gt++}\`,
U),Ae=e=>Ze(e,\`plot-\${gt++}\`),yt=[tt,nt,ot,st,rt].map(Ne),bt=[Ae(Be)];yt.push(Ne(at),Ne(it));bt.push(Ae(Ue),Ae(Ge),Ae(Ke));
var Qt=mt(),X=e=>e[e.length-1],Jt=()=>{Fe=0;let{data:e}=l,t=be();l.pointed!==void 0&&l.pointed<t.from&&(l.pointed=void 0);
let n=Ye(t),o=Me(n,l.pointed??t.to);for(let s of yt)s(t,n,o);for(let s of bt)s(e.totals,t.to);Kt(t,e.phases),Zt(t,e.consumers),
Qt(t,l.pointed===void 0?o:Me(n,t.to)),Gt(t.to),e.totals!==void 0&&Ut(e.totals,t.to),Xt(t.to),Yt(),l.speaking=void 0},Xt=e=>{
let{hello:t,instance:n,phases:o,totals:s}=l.data;t.name&&f(T("name"),\`AMQP: \${t.name}\`);let r=X(o),a=[...o].reverse().find(
({peer:u})=>u);if(a!==void 0&&f(T("peer"),\`\${r?.peer?"":"last connected to "}\${a.product} at \${a.peer}\`),n!==void 0){let{
pid:u,startedAt:i,version:c}=n,y=[...c===null?[]:[\`version \${c}\`],...u===null?[]:[\`process \${u}\`],\`up for \${P(e-i)}, sin\\
ce \${H(i)} \${oe()}\`];f(T("service"),y.join(", "))}let d=(s?.findings.length??0)+(s?.moreFindings??0),m=r===void 0||r.name===
"open"?"":r.name,h=d===0?"open":\`\${d} \${d===1?"problem":"problems"}\`,b=D.title===void 0?m||h:wt[D.name];document.title=\`\${b}\\
 \\xB7 \${T("name").textContent}\`},D={name:"connecting"},Se=0,wt={connecting:"connecting",live:"live",hidden:"paused while\\
 hidden",lost:"stream lost","sign in":"sign in again",denied:"access denied",full:"too many viewers",buffered:"no events"},
Yt=()=>{let e=D.title!==void 0,t=l.isFrozen&&!e;f(T("stream"),t?\`frozen at \${H(ye())}\`:wt[D.name],t?"paused":e?"lost":D.
name),T("lost").hidden=!e,f(T("lost-title"),D.title??""),f(T("lost-text"),D.text??""),f(T("age"),Se>0?\`The values are fr\\
om \${H(ye())} \${oe()}, \${P(Date.now()-Se)} old.\`:"No data was received yet."),T("again").hidden=D.isFinal!==!0,f(T("agai\\
n"),D.name==="sign in"?"Reload":"Try again"),document.body.classList.toggle("stale",D.name!=="live"&&Se>0)},en=e=>{let t=D;
D=e,e.title!==void 0&&e.title!==t.title&&L(\`\${e.title} \${e.text??""}\`),e.name==="live"&&t.title!==void 0&&L("Stream rest\\
ored."),U()},tn=({name:e,reason:t},n)=>{e==="open"?L(n.name==="blocked"?"The broker accepts messages again.":"Connection\\
 open."):e==="blocked"?L(\`The broker blocks publishers: \${t}.\`):e==="closed"?L(\`Connection closed permanently: \${t}.\`):L(
\`Connection lost: \${t}. Reconnecting.\`)},nn=({name:e,reason:t},n)=>{e==="reconnecting"?L(\`The consumers\\u2019 connection is l\\
ost: \${t}. Reconnecting.\`):e==="closed"?L(\`The consumers\\u2019 connection is closed permanently: \${t}.\`):e==="open"&&n.name===
"reconnecting"&&L("The consumers\\u2019 connection is open.")},xt=100,ie=0,ft=(e,t,n)=>{let o={...t,number:t.number+ie},s=X(
e);s!==void 0&&o.number<s.number||(s?.number===o.number&&e.pop(),e.push(o),e.length>xt&&e.shift(),s!==void 0&&s.name!==o.
name&&!l.isFrozen&&n(o,s))},pt=(e,t,n)=>{e.length>0&&e.push({number:ie-1,at:n,name:"gone"}),e.push(...t.map(o=>({...o,number:o.
number+ie}))),e.splice(0,e.length-xt)},ht=[],Pe=(e,t,n)=>{if(!(t.at<=(X(e)?.at??-1)))for(e.push(t);e[0].at<t.at-n;)e.shift()},
on={hello:e=>{let{instance:t,phases:n,...o}=e,s=x.instance;if(x.hello=o,x.instance=t,s?.id===t.id){x.samples.length=x.coarse.
length=0;let a=(d,m)=>{let h=d.filter(({number:b})=>b<ie);d.splice(0,d.length,...h,...m.map(b=>({...b,number:b.number+ie})))};
a(x.phases,n),a(x.consumers,e.consumers);return}s!==void 0&&(ie=Math.max(X(x.phases)?.number??0,X(x.consumers)?.number??
0)+2,L("The service has started again."));let r=Math.min(t.startedAt,Math.max(X(x.samples)?.at??0,X(x.coarse)?.at??0));pt(
x.phases,n,r),pt(x.consumers,e.consumers,r),x.starts.push(t.startedAt),x.starts.splice(0,x.starts.length-20),x.table=x.totals=
void 0},phase:e=>ft(x.phases,e,tn),consumers:e=>ft(x.consumers,e,nn),history:e=>{for(let t of e)Pe(x.coarse,t,x.hello.coarseWindow)},
coarse:e=>Pe(x.coarse,e,x.hello.coarseWindow),sample:e=>{let{interval:t,max:n,window:o}=x.hello;Pe(x.samples,e,o+2*t),!l.
isFrozen&&e.pools.forEach(([s],r)=>{n===null||s<n||e.at-(ht[r]??0)<3e4||(ht[r]=e.at,L(\`All \${v(n)} \${te[r]} channels are\\
 in use.\`))})},totals:e=>{x.totals=e},table:e=>{x.table=e}},sn=ct({listeners:on,onEvents:()=>{Se=Date.now(),T("stream").
toggleAttribute("data-beat"),U()},onStatus:en,silence:()=>6*x.hello.interval});setInterval(()=>{D.name!=="live"&&!document.
hidden&&U()},1e3);var Te=(e,t)=>T(e).addEventListener("click",()=>{t(),U()});Te("freeze",()=>{l.isFrozen?Ie():De(),f(T("\\
freeze"),l.isFrozen?"Resume":"Freeze")});Te("zone",()=>{l.isLocal=!l.isLocal,f(T("zone"),\`Times: \${oe()}\`)});Te("range",
()=>{l.isHour=!l.isHour,l.pointed=void 0,f(T("range"),l.isHour?"Range: 1 hour":"Range: 5 minutes")});Te("again",()=>{D.name===
"sign in"?location.reload():sn.again()});new ResizeObserver(U).observe(document.body);U();})();
`
