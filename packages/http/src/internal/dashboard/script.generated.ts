// Made by `npm run client` from packages/http/client/main.ts. Do not edit.
export const script = `"use strict";(()=>{var xe=(e,n,t)=>{for(let[o,a]of Object.entries(n))e.setAttribute(o,String(a));return e.append(...t),e},m=(e,n={},...t)=>xe(
document.createElement(e),n,t),b=(e,n,...t)=>xe(document.createElementNS("http://www.w3.org/2000/svg",e),n,t),x=e=>{let n=document.
getElementById(e);if(n===null)throw new Error(\`no element has the id \${e}\`);return n},p=(e,n,t)=>{e.textContent!==n&&(e.
textContent=n),t!==void 0&&e.className!==t&&(e.className=t)},C=e=>{let n=x("say");for(n.append(m("p",{},e));n.children.length>
5;)n.firstChild?.remove()},I=e=>{let n=e.map(a=>m("th",{scope:"col"},a)),t=m("tbody"),o=[];return{element:m("table",{},m(
"thead",{},m("tr",{},...n)),t),head:n,row:a=>{let s=o[a];if(s!==void 0)return s;let i=e.map((l,c)=>c===0?m("th",{scope:"\\
row"}):m("td"));return t.append(m("tr",{},...i)),o.push(i),i},limit:a=>{for(let[s]of o.splice(a))s?.parentElement?.remove()}}},
_=(e,n,t)=>{let o=n===void 0?[e]:[\`\${e} \`,m("small",{},n)],a=m("figure",{"aria-labelledby":t},m("h2",{id:t},...o));return x(
"plots").append(a),a};var r={hello:{name:null,window:3e5,interval:1e3,max:null},samples:[],phases:[],consumers:[],totals:void 0,frozen:void 0,
pointed:void 0,heardAt:0,isLost:!1},G=["regular","confirm","transaction"];var J={connecting:["connecting","warn"],open:["open","good"],blocked:["blocked","warn"],reconnecting:["reconnecting","ba\\
d"],closed:["closed","bad"],none:["none","soft"]},$e=new Intl.NumberFormat("en",{maximumFractionDigits:0}),Je=new Intl.NumberFormat(
"en",{maximumFractionDigits:1}),ve=new Intl.NumberFormat("en",{maximumSignificantDigits:3}),$=e=>$e.format(e),j=e=>(e>0&&
e<100?Je:$e).format(e),Q=e=>e>=1e3?\`\${ve.format(e/1e3)} s\`:\`\${ve.format(e)} ms\`,z=e=>{let n=Math.max(0,Math.round(e/1e3));
return n<60?\`\${n}\\xA0s\`:n<3600?\`\${Math.floor(n/60)}\\xA0min \${n%60}\\xA0s\`:\`\${Math.floor(n/3600)}\\xA0h \${Math.floor(n%3600/
60)}\\xA0min\`},ne=e=>new Date(e).toLocaleTimeString("en-GB");var Ae=e=>Object.entries(e).map(([n,t])=>[n.replace("timedOut","timed out").replace(/_/g," "),[t]]),Se={title:"Published\\
 since the start",tables:({published:e})=>[{head:["Outcome","messages"],rows:Ae(e)}]},Ee={title:"Channels and deliveries\\
 since the start",tables:({pools:e,settled:n})=>{let t={head:["Channels","opened","recycled","discarded","timeouts"],rows:G.
map((o,a)=>[o,e[a]??[]])};return n===null?[t]:[t,{head:["Deliveries","count"],rows:Ae(n)}]}},ke=({tables:e,title:n},t)=>{
let o=_(n,void 0,t),a=m("p",{class:"none"},"no data");o.append(a);let s=[];return i=>{i!==void 0&&(a.remove(),e(i).forEach(
({head:l,rows:c},d)=>{let u=s[d];u===void 0&&(u=I(l),s.push(u),o.append(u.element)),c.forEach(([A,S],v)=>{let[y,...E]=u.
row(v);p(y,A),E.forEach((N,w)=>p(N,$(S[w]??0)))})}))}};var de=()=>Math.max(r.phases[r.phases.length-1]?.at??0,r.samples[r.samples.length-1]?.at??0),te=()=>{let e=r.frozen??de(),
n=e-(r.samples[0]?.at??e),t=n<=6e4?6e4:n<=12e4?12e4:r.hello.window;return{from:e-t,to:e,words:t===6e4?"the last minute":
\`the last \${t/6e4} minutes\`}},ce=e=>e<2.5*r.hello.interval,me=(e,n)=>{let t;for(let o of e)(t===void 0||Math.abs(o.at-n)<
Math.abs(t.at-n))&&(t=o);return t!==void 0&&ce(Math.abs(t.at-n))?t:void 0},R=46,M=8,Ue=16,oe=(e,n)=>{let[t,o]=[e.clientWidth,
e.clientHeight];return{width:t,height:o,low:o-Ue,x:a=>R+Math.max(0,a-n.from)/(n.to-n.from)*(t-R)}},re=(e,n,t)=>{let o=(t.
to-t.from)/1e3,a=o===60?20:o===120?30:60;for(let s=0;s<o;s+=a){let i={x:n.x(t.to-s*1e3),y:n.height-2,"text-anchor":s===0?
"end":"middle"};e.append(b("text",i,s===0?"now":\`\\u2212\${s%60===0?\`\${s/60} min\`:\`\${s} s\`}\`))}},se=(e,n)=>{if(r.pointed===
void 0)return;let t=n.x(r.pointed);e.append(b("line",{x1:t,x2:t,y1:M,y2:n.low,stroke:"var(--soft)"}))},ae=(e,n)=>e.map((t,o)=>({
phase:t,end:Math.min(e[o+1]?.at??n.to,n.to)})).filter(({end:t,phase:o})=>t>=n.from&&o.at<=n.to),ie=(e,n)=>{let t=o=>{let a=e.
getBoundingClientRect(),s=te(),i=s.from+(o.clientX-a.left-R)/(a.width-R)*(s.to-s.from);r.pointed=i>s.to||i<s.from?void 0:
i,n()};e.addEventListener("pointermove",t),e.addEventListener("pointerdown",t),e.addEventListener("pointerleave",()=>{r.
pointed=void 0,n()})};var Xe=({attempt:e=0,generation:n,name:t,peer:o,reason:a=""})=>t==="open"?\`connection \${n} to \${o}\`:e===0?a:\`\${a===""?"":
\`\${a}, \`}\${e} \${e===1?"attempt":"attempts"} failed\`,ue=(e,n,t,o)=>{let a=_(e,n,t),s=b("svg",{role:"img"}),i=I(["Since","\\
State","For","Why"]);return a.className="wide",a.append(s,i.element),ie(s,o),(l,c)=>{let d=oe(s,l),u=document.createDocumentFragment();
for(let{end:y,phase:E}of ae(c,l)){let N=d.x(E.at),w=Math.max(2,d.x(y)-N),[f,k]=J[E.name],g={x:N,y:M,width:w,height:d.low-
M-2};u.append(b("rect",{...g,fill:\`var(--\${k})\`})),w>f.length*6.8+8&&u.append(b("text",{class:"on",x:N+6,y:(M+d.low)/2+3},
f))}re(u,d,l),se(u,d),s.replaceChildren(u);let A=c[c.length-1]?.name??"no data";s.setAttribute("aria-label",\`\${e}, \${l.words}\\
. Now: \${A}. Each state is in the table.\`);let v=c.map((y,E)=>({phase:y,end:c[E+1]?.at??l.to})).slice(-6).reverse();v.forEach(
({end:y,phase:E},N)=>{let[w,f,k,g]=i.row(N);p(w,ne(E.at)),p(f,...J[E.name]),p(k,z(y-E.at)),p(g,Xe(E))}),i.limit(v.length)}};var fe=e=>G.map((n,t)=>({name:n,value:({pools:o})=>o[t]?.[e]})),U=(e,n)=>n.map((t,o)=>({name:t,value:a=>a[e]?.[o]})),Ce=[
"median","95 %","99 %"],Me={title:"Channels in use",unit:"by kind",format:$,series:fe(0),idle:fe(1),hasLimit:!0},Te={title:"\\
Borrowers in line",unit:"by kind",format:$,series:fe(2)},Pe={title:"Publisher",unit:"messages",format:$,series:U("publis\\
her",["on their way","in line"]),hasFlow:!0},Le={title:"Published",unit:"a second",format:j,series:U("published",["confi\\
rmed","failed"])},Re={title:"Time to the confirm",format:Q,series:U("confirming",Ce),isLogarithmic:!0},Ne={title:"Consum\\
ed",unit:"a second",format:j,series:U("consumed",["delivered","acknowledged","otherwise settled"])},Fe={title:"Time in h\\
andlers",format:Q,series:U("handling",Ce),isLogarithmic:!0},pe=[{colour:"var(--a)",dashes:"",key:""},{colour:"var(--b)",
dashes:"6 3",key:" dash"},{colour:"var(--c)",dashes:"2 3",key:" dot"}],F=e=>e!==void 0,Ze=e=>{if(!(e>0))return 1;let n=Math.
pow(10,Math.floor(Math.log10(e))),t=e/n;return([1,2,4,6,8].find(o=>t<=o)??10)*n},Ye=(e,n,t)=>({ticks:e===1&&n?[0,1]:[0,e/
2,e],y:o=>t-o/e*(t-M)}),en=(e,n,t)=>{let o=Math.floor(Math.log10(n>0?Math.max(e,.01):1)),a=Math.max(o+1,Math.ceil(Math.log10(
Math.max(n,.01)))),s=a-o>3?2:1,i=[];for(let l=o;l<=a;l+=s)i.push(Math.pow(10,l));return{ticks:i,y:l=>t-(Math.log10(Math.
max(l,.01))-o)/(a-o)*(t-M)}},nn=(e,n,t)=>{for(let{end:o,phase:a}of ae(r.phases,t)){if(a.name==="open")continue;let s=n.x(
a.at),i={x:s,y:M,width:Math.max(1,n.x(o)-s),height:n.low-M},l=a.name==="blocked"?"var(--warn)":"var(--shade)";e.append(b(
"rect",{...i,fill:l,"fill-opacity":.13}))}},tn=({value:e},n,t,o)=>{let a="",s="",i,l=-1/0,c=()=>{i!==void 0&&(s+=\`L\${i.end}\\
 \${t.low}L\${i.start} \${t.low}Z\`),i=void 0};for(let d of n){let u=e(d);if((!F(u)||!ce(d.at-l))&&c(),l=d.at,!F(u))continue;
let A=t.x(d.at).toFixed(1),S=\`\${i===void 0?"M":"L"}\${A} \${o(u).toFixed(1)}\`;s+=S,a+=i===void 0?\`\${S}h.1\`:S,i===void 0?i=
{start:A,end:A}:i.end=A}return c(),{path:a,area:s}},Ve=(e,n,t)=>{let{format:o,hasFlow:a=!1,hasLimit:s=!1,idle:i,isLogarithmic:l=!1,
series:c,title:d,unit:u}=e,A=_(d,u,n),S=A.querySelector("small"),v=b("svg",{role:"img"}),y=I(["","now","lowest","highest",
...i===void 0?[]:["idle"]]);y.head[0].append(m("span",{class:"vh"},d));let E=c.map(({name:w},f)=>{let k=m("span",{class:\`\\
key\${pe[f].key}\`,"aria-hidden":"true"});k.style.borderColor=pe[f].colour;let[g,...O]=y.row(f);return g.append(k,w),O});A.
append(v,y.element),ie(v,t);let N=(w,f)=>c.map(({name:k,value:g},O)=>{let D=w.map(g).filter(F),W=f===void 0?void 0:g(f),
T=D.length===0,q=T?void 0:W,V=E[O];[q,T?void 0:Math.min(...D),T?void 0:Math.max(...D)].forEach((X,P)=>{F(X)?p(V[P],o(X),
""):p(V[P],T?P===0?"no data":"":"\\u2013","none")});let K=f===void 0?void 0:i?.[O]?.value(f);return i!==void 0&&p(V[3],F(
K)?o(K):"\\u2013"),\`\${k} \${V[0].textContent}\`});return(w,f,k)=>{let g=s?r.hello.max??void 0:void 0,O=[...N(f,k),...F(g)?[
\`at most \${$(g)} of each kind\`]:[]];a&&S!==null&&r.totals!==void 0&&p(S,\`messages, \${r.totals.flow.toLowerCase()}\`),p(y.
head[1],r.pointed===void 0||k===void 0?"now":ne(k.at));let D=c.flatMap(({value:h})=>f.map(h).filter(F)),W=Math.max(0,...D),
T=oe(v,w),{low:q,width:V}=T,K=o===$,{ticks:X,y:P}=l?en(Math.min(...D),W,q):Ye(Ze(Math.max(W,g??0)||(K?1:0)),K,q),L=document.
createDocumentFragment();if(nn(L,T,w),X.forEach((h,Z)=>{let Y={x1:R,x2:V,y1:P(h),y2:P(h)};if(L.append(b("line",{...Y,stroke:Z===
0?"var(--line)":"var(--grid)"})),W>0||F(g)||Z===0&&!l){let ee={x:R-6,y:P(h)+4,"text-anchor":"end"};L.append(b("text",ee,
h===0?"0":o(h).replace(",000","k")))}}),F(g)){let h={x1:R,x2:V,y1:P(g),y2:P(g)};L.append(b("line",{...h,stroke:"var(--so\\
ft)","stroke-dasharray":"2 4"}))}for(let h=c.length-1;h>=0;h--){let{area:Z,path:Y}=tn(c[h],f,T,P);if(Y==="")continue;let{
colour:ee,dashes:we}=pe[h];h===0&&!l&&L.append(b("path",{d:Z,fill:ee,"fill-opacity":.14})),L.append(b("path",{d:Y,fill:"\\
none",stroke:ee,"stroke-width":1.8,"stroke-linejoin":"round","stroke-linecap":we===""?"round":"butt","stroke-dasharray":we}))}
if(D.length===0){let h={x:R+(V-R)/2,y:(M+q)/2+4,"text-anchor":"middle"};L.append(b("text",h,"no data"))}re(L,T,w),se(L,T),
v.replaceChildren(L);let Ke=u===void 0?d:\`\${d}, \${u}\`;v.setAttribute("aria-label",\`\${Ke}, \${w.words}. Now: \${O.join(", ")}\\
.\`)}};var B=e=>{let n=m("dd",{},"\\u2013");return x("tiles").append(m("div",{},m("dt",{},e),n)),(t,o="",a="")=>{n.textContent!==
(o===""?t:\`\${t} \${o}\`)&&n.replaceChildren(t,o===""?"":m("small",{},\` \${o}\`)),n.className=a}},De=()=>{let e=B("Connection"),
n=B("Channels in use"),t=B("In line"),o=B("Published"),a=B("Consumed"),s=B("Confirm, 95 %");return(i,l)=>{let c=r.phases[r.
phases.length-1];if(c!==void 0){let[v,y]=J[c.name];e(v,\`for \${z(i.to-c.at)}\`,y)}if(l===void 0)return;let{max:d}=r.hello,
[u=0]=l.pools[0]??[],A=d!==null&&u>=d;n($(u),d===null?"":\`of \${$(d)}\`,A?"warn":"");let S=l.pools.reduce((v,[,,y])=>v+y,0);
t($(S),S===1?"borrower":"borrowers",S>0?"warn":""),o(l.published===null?"\\u2013":j(l.published[0]),"a second"),a(l.consumed===
null?"\\u2013":j(l.consumed[0]),l.consumed===null?"no data":"a second"),s(l.confirming===null?"\\u2013":Q(l.confirming[1]),
l.confirming===null?"no data":"")}};var he=0,H=()=>{he===0&&(he=requestAnimationFrame(ln))},rn=ue("Connection","of pool and publisher","plot-connection",H),
sn=ue("Consumers\\u2019 connection","while there are any","plot-consumers",H),Ge=0,ye=e=>Ve(e,\`plot-\${Ge++}\`,H),je=e=>ke(
e,\`plot-\${Ge++}\`),ze=[Me,Te,Pe,Le,Re].map(ye),Be=[je(Se)];ze.push(ye(Ne),ye(Fe));Be.push(je(Ee));var an=De(),ln=()=>{he=
0,r.pointed!==void 0&&r.pointed<te().from&&(r.pointed=void 0);let e=te(),n=r.samples.filter(({at:s})=>s>=e.from&&s<=e.to),
t=me(n,r.pointed??e.to);for(let s of ze)s(e,n,t);for(let s of Be)s(r.totals);rn(e,r.phases),sn(e,r.consumers),an(e,r.pointed===
void 0?t:me(n,e.to)),r.hello.name&&p(x("name"),\`AMQP: \${r.hello.name}\`);let o=r.phases[r.phases.length-1],a=[...r.phases].
reverse().find(({peer:s})=>s);a!==void 0&&p(x("peer"),\`\${o?.peer?"":"last on "}\${a.product} at \${a.peer}\`),document.title=
\`\${r.isLost?"stream lost":o?.name??""} \\xB7 \${x("name").textContent}\`},le=()=>{let{frozen:e,heardAt:n,isLost:t}=r,o=n>0?
"live":"connecting";t?p(x("stream"),"stream lost","lost"):e!==void 0?p(x("stream"),"paused","paused"):p(x("stream"),o,o),
x("lost").hidden=!t,p(x("age"),n>0?\`What is below is \${z(Date.now()-n)} old.\`:"Nothing has come yet."),document.body.classList.
toggle("stale",t)},dn=()=>{r.heardAt=Date.now(),r.isLost&&C("The stream is back."),r.isLost=!1,le(),H()},We=()=>{!r.isLost&&
r.heardAt>0&&C("Stream lost. Trying again."),r.isLost=!0,le(),H()},cn=({name:e,reason:n},t)=>{e==="open"?C(t.name==="blo\\
cked"?"The broker takes messages again.":"Connection open."):e==="blocked"?C(\`The broker blocks publishers: \${n}.\`):e===
"closed"?C(\`Connection closed for good: \${n}.\`):C(\`Connection lost: \${n}. Reconnecting.\`)},mn=({name:e,reason:n},t)=>{e===
"reconnecting"?C(\`The consumers\\u2019 connection is lost: \${n}. Reconnecting.\`):e==="closed"?C(\`The consumers\\u2019 connectio\\
n is closed for good: \${n}.\`):e==="open"&&t.name==="reconnecting"&&C("The consumers\\u2019 connection is open.")},He=(e,n,t)=>{
let o=e[e.length-1];o!==void 0&&n.number<o.number||(o?.number===n.number&&e.pop(),e.push(n),e.length>50&&e.shift(),o!==void 0&&
o.name!==n.name&&t(n,o))},Oe="",un=e=>{let n=e.map(([s,i,l,c])=>{let d=new Date(l).toLocaleTimeString();return\`\${s} sinc\\
e \${d}: \${i}\${c?" (not ready)":""}\`}),t=n.join(" | ");if(t===Oe)return;Oe=t;let o=x("conditions");o.hidden=n.length===0,
o.replaceChildren(...n.map(s=>m("li",{},s)));let a=n[n.length-1];a!==void 0&&C(a)},Ie=[],qe={hello:e=>{r.hello=e,r.samples=
[],r.phases=[...e.phases],r.consumers=[...e.consumers]},phase:e=>He(r.phases,e,cn),consumers:e=>He(r.consumers,e,mn),sample:e=>{
let{interval:n,max:t,window:o}=r.hello;for(r.samples.push(e);r.samples[0].at<e.at-o-2*n;)r.samples.shift();e.pools.forEach(
([a],s)=>{t===null||a<t||e.at-(Ie[s]??0)<3e4||(Ie[s]=e.at,C(\`All \${$(t)} \${G[s]} channels are in use.\`))})},totals:e=>{r.
totals=e,r.frozen===void 0&&un(e.conditions)}},pn=(e,n)=>e.addEventListener(n,({data:t})=>{qe[n](JSON.parse(t)),dn()}),ge,
be=()=>{let e=new EventSource(\`\${location.pathname.replace(/[/]+$/,"")}/events\`);ge=e;for(let n of Object.keys(qe))pn(e,
n);e.addEventListener("error",()=>{We(),e.readyState===EventSource.CLOSED&&setTimeout(()=>{e===ge&&be()},3e3)})};setInterval(
()=>{if(r.isLost)return le();r.heardAt>0&&Date.now()-r.heardAt>6*r.hello.interval&&(ge.close(),We(),be())},1e3);var _e=x(
"pause");_e.addEventListener("click",()=>{r.frozen=r.frozen===void 0?de():void 0,_e.setAttribute("aria-pressed",String(r.
frozen!==void 0)),le(),H()});new ResizeObserver(H).observe(document.body);be();})();
`
