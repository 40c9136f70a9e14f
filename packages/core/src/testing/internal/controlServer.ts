/**
 * The Erlang side of `control.ts`. It runs inside the broker's node after the node has booted: it listens on TCP,
 * evaluates the expressions that it receives, and returns their values. One evaluation takes about a millisecond, where
 * a `rabbitmqctl eval` takes half a second to start another Erlang machine.
 *
 * Requests and replies are one length-prefixed frame each: `<token><source>`, and `+<value>` or `-<failure>`. Nothing
 * is evaluated without the token. When the broker is ready, the script prints its port on the node's standard output.
 */
export const script = (options: {
  readonly token: string
  readonly port: number
  readonly address: string
}): string => `
Token = <<"${options.token}">>,
Format = fun(Text) when is_binary(Text) -> Text;
            (Term) -> unicode:characters_to_binary(io_lib:format("~tp", [Term]))
         end,
Evaluate = fun(Source) ->
  {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
  {ok, Expressions} = erl_parse:parse_exprs(Tokens),
  {value, Value, _} = erl_eval:exprs(Expressions, erl_eval:new_bindings()),
  Format(Value)
end,
Serve = fun(Socket) ->
  Size = byte_size(Token),
  case gen_tcp:recv(Socket, 0, 60000) of
    {ok, <<Token:Size/binary, Source/binary>>} ->
      Answer = try [<<"+">>, Evaluate(Source)]
               catch Class:Reason -> [<<"-">>, Format({Class, Reason})]
               end,
      gen_tcp:send(Socket, Answer);
    _ -> ok
  end,
  gen_tcp:close(Socket)
end,
Ready = fun Ready() ->
  rabbit:await_startup(),
  case rabbit:is_running() of true -> ok; false -> timer:sleep(20), Ready() end
end,
spawn(fun() ->
  {ok, Listener} = gen_tcp:listen(${options.port}, [binary, {packet, 4}, {active, false}, {nodelay, true},
    {reuseaddr, true}, {backlog, 128}, {ip, {${options.address.replaceAll(".", ",")}}}]),
  {ok, Port} = inet:port(Listener),
  Ready(),
  io:format("~ncontrol server ready on ~b~n", [Port]),
  Accept = fun Accept() ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() -> receive go -> Serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    Accept()
  end,
  Accept()
end),
ok.
`

/** The line that {@link script} prints when the broker is ready, with its port. */
export const ready = /^control server ready on (\d+)$/m

/**
 * Ends a private node when its supervisor has ended without ending the node, which the supervisor normally does. The
 * node's standard input is a pipe from the supervisor. The guard also ends epmd and removes the folder.
 */
export const guard = (options: { readonly epmdPort: number; readonly directory: string }): string => `
spawn(fun() ->
  Input = open_port({fd, 0, 0}, [in, eof, binary]),
  Wait = fun Wait() -> receive {Input, eof} -> ok; {Input, _} -> Wait() end end,
  Wait(),
  case gen_tcp:connect({127,0,0,1}, ${options.epmdPort}, [binary, {packet, 2}, {active, false}], 1000) of
    {ok, Epmd} -> gen_tcp:send(Epmd, <<"k">>), gen_tcp:recv(Epmd, 0, 1000);
    _ -> ok
  end,
  file:del_dir_r(<<"${options.directory}"/utf8>>),
  erlang:halt(0, [{flush, false}])
end),
ok.
`
